"""What training does with rows besides products: native/train_rows.h and native/train_norm.h.

T tokens, E experts, K choices of a token, N computed choices, D row width, R rows, B batch,
H heads, d head dim. Everything here takes what `runs_native` accepts.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mobilemoe.kernels import _training
from mobilemoe.kernels.grouped import once


def choose_experts(scores_TE: Tensor, k: int) -> Tensor:
    """Return the indices [T, K] of each row's k largest, descending; ties to the lower index."""
    ids_TK = torch.empty(len(scores_TE), k, dtype=torch.long)
    _training.choose_experts(scores_TE.detach().contiguous(), ids_TK, torch.get_num_threads())
    return ids_TK


def sort_by_expert(ids_TK: Tensor, experts: int) -> Tensor:
    """Return the flattened choices [T K] sorted by expert, stable in token order."""
    order = torch.empty(ids_TK.numel(), dtype=torch.long)
    _training.sort_by_expert(ids_TK.contiguous(), experts, order)
    return order


def gather_rows(h_TD: Tensor, choices_N: Tensor, slots_TK: Tensor) -> Tensor:
    """Return [N, D]: the token's row for each computed choice; `slots` says where it lies."""
    x_ND: Tensor = _Gather.apply(h_TD, choices_N, slots_TK)  # type: ignore[no-untyped-call]
    return x_ND


def combine_rows(y_ND: Tensor, slots_TK: Tensor, weights_TK: Tensor) -> Tensor:
    """Return [T, D]: each token's weighted sum over its choices; a slot of -1 adds nothing.

    Every row of y is the slot of exactly one choice.
    """
    y_TD: Tensor = _Combine.apply(y_ND, slots_TK, weights_TK)  # type: ignore[no-untyped-call]
    return y_TD


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """Return silu(gate) * up for two tensors of one shape."""
    a: Tensor = _SwiGLU.apply(gate, up)  # type: ignore[no-untyped-call]
    return a


def cross_entropy_rows(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """Return -log softmax(logits)[target] of each row; its gradient takes the logits' place.

    Raises:
        ValueError: if a target is not 0 to V - 1, or the shapes do not fit.
    """
    losses_N = torch.empty(len(targets_N))
    threads = torch.get_num_threads()
    _training.cross_entropy(logits_NV, targets_N.contiguous(), losses_N, threads)
    return losses_N


def scaled_rms_norm(x: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """Return `x` over the root mean square of its last axis, times `weight`."""
    y: Tensor = _RMSNorm.apply(x, weight_D, eps)  # type: ignore[no-untyped-call]
    return y


def rotate_heads(x_BTHd: Tensor, cos: Tensor, sin: Tensor, eps: float) -> Tensor:
    """Return [B, H, T, d]: pairs rotated by the angles [T, d/2], then divided by their RMS."""
    y_BHTd: Tensor = _RotateHeads.apply(x_BTHd, cos, sin, eps)  # type: ignore[no-untyped-call]
    return y_BHTd


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h_TD: Tensor, choices_N: Tensor, slots_TK: Tensor) -> Tensor:
        ctx.save_for_backward(slots_TK)
        tokens_N = choices_N.div(slots_TK.shape[1], rounding_mode="floor")
        return h_TD.index_select(0, tokens_N)

    @staticmethod
    @once
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        (slots_TK,) = ctx.saved_tensors
        grad_x_ND = grad_outputs[0].contiguous()
        grad_h_TD = grad_x_ND.new_empty(len(slots_TK), grad_x_ND.shape[1])
        _training.sum_rows(grad_x_ND, slots_TK, grad_h_TD, torch.get_num_threads())
        return grad_h_TD, None, None


class _Combine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y_ND: Tensor, slots_TK: Tensor, weights_TK: Tensor) -> Tensor:
        y_ND, weights_TK = y_ND.contiguous(), weights_TK.contiguous()
        y_TD = y_ND.new_empty(len(slots_TK), y_ND.shape[1])
        _training.combine_rows(y_ND, slots_TK, weights_TK, y_TD, torch.get_num_threads())
        ctx.save_for_backward(y_ND, slots_TK, weights_TK)
        return y_TD

    @staticmethod
    @once
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, Tensor]:
        y_ND, slots_TK, weights_TK = ctx.saved_tensors
        grad_y_ND, grad_weights_TK = torch.empty_like(y_ND), torch.empty_like(weights_TK)
        _training.combine_rows_gradient(
            y_ND,
            slots_TK,
            weights_TK,
            grad_outputs[0].contiguous(),
            grad_y_ND,
            grad_weights_TK,
            torch.get_num_threads(),
        )
        return grad_y_ND, None, grad_weights_TK


def _rows(x: Tensor) -> Tensor:
    return x.contiguous().view(-1, x.shape[-1])


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        gate, up = gate.contiguous(), up.contiguous()
        a = torch.empty_like(gate)
        _training.swiglu(_rows(gate), _rows(up), _rows(a), torch.get_num_threads())
        ctx.save_for_backward(gate, up)
        return a

    @staticmethod
    @once
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        grad_gate, grad_up = torch.empty_like(gate), torch.empty_like(up)
        _training.swiglu_gradient(
            _rows(gate),
            _rows(up),
            _rows(grad_outputs[0]),
            _rows(grad_gate),
            _rows(grad_up),
            torch.get_num_threads(),
        )
        return grad_gate, grad_up


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_D: Tensor, eps: float) -> Tensor:
        x, weight_D = x.contiguous(), weight_D.contiguous()
        y = torch.empty_like(x)
        factors_R = x.new_empty(x.numel() // x.shape[-1])
        _training.rms_norm(_rows(x), weight_D, eps, factors_R, _rows(y), torch.get_num_threads())
        ctx.save_for_backward(x, weight_D, factors_R)
        return y

    @staticmethod
    @once
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight_D, factors_R = ctx.saved_tensors
        grad_x, grad_weight_D = torch.empty_like(x), torch.empty_like(weight_D)
        _training.rms_norm_gradient(
            _rows(x),
            weight_D,
            factors_R,
            _rows(grad_outputs[0]),
            _rows(grad_x),
            grad_weight_D,
            torch.get_num_threads(),
        )
        return grad_x, grad_weight_D, None


class _RotateHeads(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BTHd: Tensor, cos: Tensor, sin: Tensor, eps: float) -> Tensor:
        x_BTHd = x_BTHd.contiguous()
        B, T, H, d = x_BTHd.shape
        y_BHTd, factors = x_BTHd.new_empty(B, H, T, d), x_BTHd.new_empty(B * T * H)
        _training.rotate_heads(x_BTHd, cos, sin, eps, factors, y_BHTd, torch.get_num_threads())
        ctx.save_for_backward(x_BTHd, cos, sin, factors)
        return y_BHTd

    @staticmethod
    @once
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None]:
        x_BTHd, cos, sin, factors = ctx.saved_tensors
        grad_x_BTHd = torch.empty_like(x_BTHd)
        grad_y_BHTd, threads = grad_outputs[0].contiguous(), torch.get_num_threads()
        _training.rotate_heads_gradient(
            x_BTHd, cos, sin, factors, grad_y_BHTd, grad_x_BTHd, threads
        )
        return grad_x_BTHd, None, None, None
