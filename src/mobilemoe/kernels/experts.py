"""Whole SwiGLU experts in one call, forward and backward: native/train_experts.h.

N rows sorted by expert, E experts, D hidden, F expert width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mobilemoe.kernels import _training
from mobilemoe.kernels.grouped import once, require_native


def swiglu_experts(
    x_ND: Tensor, counts: tuple[int, ...], gate_up_EDF: Tensor, down_EFD: Tensor
) -> Tensor:
    """Return [N, D]: expert e applies (silu(x G) * (x U)) Dn to the next `counts[e]` rows.

    `gate_up` is [E, D, 2F], gate before up. The bits depend on neither the number of threads
    nor the other experts' rows. Gradients exist for x and both weights, once.

    Raises:
        MobileMoEError: unless all are float32 on the CPU.
        ValueError: if the shapes do not fit, or the counts do not sum to N.
    """
    require_native(x=x_ND, gate_up=gate_up_EDF, down=down_EFD)
    y_ND: Tensor = _SwiGLUExperts.apply(x_ND, counts, gate_up_EDF, down_EFD)  # type: ignore[no-untyped-call]
    return y_ND


class _SwiGLUExperts(torch.autograd.Function):
    """Keeps x and x [G U]; activations are computed again in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, x_ND: Tensor, counts: tuple[int, ...], gate_up_EDF: Tensor, down_EFD: Tensor
    ) -> Tensor:
        x_ND, gate_up_EDF, down_EFD = (t.contiguous() for t in (x_ND, gate_up_EDF, down_EFD))
        h_NF = x_ND.new_empty(len(x_ND), gate_up_EDF.shape[-1])
        y_ND = torch.empty_like(x_ND)
        threads = torch.get_num_threads()
        _training.experts_forward(x_ND, counts, gate_up_EDF, down_EFD, h_NF, y_ND, threads)
        ctx.save_for_backward(x_ND, gate_up_EDF, down_EFD, h_NF)
        ctx.counts = counts
        return y_ND

    @staticmethod
    @once
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, Tensor, Tensor]:
        x_ND, gate_up_EDF, down_EFD, h_NF = ctx.saved_tensors
        grad_x, grad_gate_up, grad_down = (
            torch.empty_like(t) for t in (x_ND, gate_up_EDF, down_EFD)
        )
        _training.experts_backward(
            x_ND,
            ctx.counts,
            gate_up_EDF,
            down_EFD,
            h_NF,
            grad_outputs[0].contiguous(),
            grad_x,
            grad_gate_up,
            grad_down,
            torch.get_num_threads(),
        )
        return grad_x, None, grad_gate_up, grad_down
