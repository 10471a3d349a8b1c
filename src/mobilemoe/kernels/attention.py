"""Causal attention of grouped queries: native/train_attention.h.

B batch, H query heads, G heads of keys and values, T tokens, d head dim.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mobilemoe.kernels import _training
from mobilemoe.kernels.grouped import once, require_native


def causal_attention(q_BHTd: Tensor, k_BGTd: Tensor, v_BGTd: Tensor) -> Tensor:
    """Return [B, T, H, d]: softmax(q k^T / sqrt(d)) v over the tokens up to each one's own.

    H / G query heads in a row share a head of keys and values. The scores of all tokens never
    exist at once. The bits do not depend on the number of threads. Gradients exist once.

    Raises:
        MobileMoEError: unless all are float32 on the CPU.
        ValueError: if the shapes do not fit.
    """
    require_native(q=q_BHTd, k=k_BGTd, v=v_BGTd)
    o_BTHd: Tensor = _CausalAttention.apply(q_BHTd, k_BGTd, v_BGTd)  # type: ignore[no-untyped-call]
    return o_BTHd


class _CausalAttention(torch.autograd.Function):
    """Keeps q, k, v and a sum per query; the backward pass computes the scores again."""

    @staticmethod
    def forward(ctx: Any, q_BHTd: Tensor, k_BGTd: Tensor, v_BGTd: Tensor) -> Tensor:
        q, k, v = (t.contiguous() for t in (q_BHTd, k_BGTd, v_BGTd))
        B, H, T, d = q.shape
        o_BTHd, sums_BHT = q.new_empty(B, T, H, d), q.new_empty(B, H, T)
        _training.attend(q, k, v, d**-0.5, o_BTHd, sums_BHT, torch.get_num_threads())
        ctx.save_for_backward(q, k, v, sums_BHT)
        return o_BTHd

    @staticmethod
    @once
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v, sums_BHT = ctx.saved_tensors
        grad_q, grad_k, grad_v = (torch.empty_like(t) for t in (q, k, v))
        _training.attend_gradient(
            q,
            k,
            v,
            q.shape[-1] ** -0.5,
            sums_BHT,
            grad_outputs[0].contiguous(),
            grad_q,
            grad_k,
            grad_v,
            torch.get_num_threads(),
        )
        return grad_q, grad_k, grad_v
