"""The routed experts: one function, and what computes it where.

N rows sorted by expert, n of them one expert's, E experts, D hidden, F expert width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mobilemoe.kernels import runs_native, swiglu_experts

ALIGNED = 8  # bfloat16 in the 16 bytes that grouped_mm wants rows and columns to be multiples of


def experts(
    x_ND: Tensor, counts: tuple[int, ...], gate_up_proj_EDF: Tensor, down_proj_EFD: Tensor
) -> Tensor:
    """Apply (silu(x G) * (x U)) Dn of each expert to its rows; gate_up is [E, D, 2F].

    Expert e owns the next `counts[e]` rows; any of them may be 0. In float32 on a CPU by our own
    kernels, in bfloat16 (also under autocast) by `torch.nn.functional.grouped_mm`, otherwise
    expert after expert. What each is worth: benchmarks/train.py.
    """
    kind = x_ND.device.type
    weights = gate_up_proj_EDF, down_proj_EFD
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        x_ND, weights = x_ND.to(dtype), (weights[0].to(dtype), weights[1].to(dtype))
    if runs_native(x_ND, *weights):
        return swiglu_experts(x_ND, counts, *weights)
    with torch.autocast(kind, enabled=False):
        if x_ND.dtype == torch.bfloat16 and _is_aligned(*weights):
            return experts_grouped_mm(x_ND, counts, *weights)
        return experts_loop(x_ND, counts, *weights)


def experts_loop(
    x_ND: Tensor, counts: tuple[int, ...], gate_up_proj_EDF: Tensor, down_proj_EFD: Tensor
) -> Tensor:
    """Compute `experts` with one product after the other: the reference, for any type."""
    outputs = []
    weights = zip(gate_up_proj_EDF.unbind(), down_proj_EFD.unbind(), strict=True)
    for rows_nD, (gate_up_DF, down_FD) in zip(x_ND.split(counts), weights, strict=True):
        gate_nF, up_nF = (rows_nD @ gate_up_DF).chunk(2, dim=-1)
        outputs.append((F.silu(gate_nF) * up_nF) @ down_FD)
    return torch.cat(outputs)


def experts_grouped_mm(
    x_ND: Tensor, counts: tuple[int, ...], gate_up_proj_EDF: Tensor, down_proj_EFD: Tensor
) -> Tensor:
    """Compute `experts` with one grouped product each for gate and up, and for down."""
    ends_E = torch.tensor(counts).cumsum(0).to(x_ND.device, torch.int32)
    gate_NF, up_NF = _grouped_mm(x_ND, gate_up_proj_EDF, ends_E).chunk(2, dim=-1)
    return _grouped_mm(F.silu(gate_NF) * up_NF, down_proj_EFD, ends_E)


def _grouped_mm(x_NI: Tensor, w_EIO: Tensor, ends_E: Tensor) -> Tensor:
    y_NO: Tensor = F.grouped_mm(_dense(x_NI), w_EIO, offs=ends_E)
    dense_NO: Tensor = _DenseGradient.apply(y_NO)  # type: ignore[no-untyped-call]
    return dense_NO


def _is_aligned(*weights: Tensor) -> bool:
    return all(size % ALIGNED == 0 for weight in weights for size in weight.shape[1:])


def _dense(rows: Tensor) -> Tensor:
    """Return `rows` with the strides of its shape; `contiguous` keeps others where N is 0 or 1."""
    if rows.stride() == (rows.shape[1], 1):
        return rows
    return rows.clone(memory_format=torch.contiguous_format)


class _DenseGradient(torch.autograd.Function):
    """The identity; its gradient has no strides of 0, which grouped_mm refuses."""

    @staticmethod
    def forward(ctx: Any, y: Tensor) -> Tensor:
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        return _dense(grad_outputs[0])
