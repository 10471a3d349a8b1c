"""Cross-entropy straight from hidden states, a few rows at a time, and the router z-loss.

N positions, D hidden, V vocabulary. All [N, V] logits and their gradient never exist at once:
on CPU they cost more time in page faults than the mathematics, and with a vocabulary of 128k
they would be the largest tensors of a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mobilemoe.data import IGNORED
from mobilemoe.kernels import cross_entropy_rows, runs_native
from mobilemoe.model import Routing

# Logits that exist at a time: what stays in a CPU's cache, and what keeps a GPU busy.
CHUNK_LOGITS = {"cpu": 2**21, "cuda": 2**27}
MIN_ROWS = 16


@dataclass(frozen=True)
class TokenLosses:
    """`total` is the differentiable sum; `each_N` the loss per position (0 where ignored)."""

    total: Tensor
    each_N: Tensor


class _LinearCrossEntropy(torch.autograd.Function):
    """Sum and terms of -log softmax(h W^T)[target]; gradients are formed in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any, h_ND: Tensor, weight_VD: Tensor, targets_N: Tensor
    ) -> tuple[Tensor, Tensor]:
        losses_N = torch.empty(len(h_ND), dtype=torch.float32, device=h_ND.device)
        grad_h_ND = torch.empty_like(h_ND)
        grad_weight_VD = torch.zeros_like(weight_VD)
        w_VD = weight_VD.to(h_ND.dtype)
        for span in _spans(len(h_ND), len(w_VD), h_ND.device.type):
            h, targets = h_ND[span], targets_N[span]
            losses_N[span], gradient = _row_losses(h @ w_VD.T, targets)
            gradient = gradient.to(h.dtype)
            torch.mm(gradient, w_VD, out=grad_h_ND[span])
            if grad_weight_VD.dtype == h.dtype:
                grad_weight_VD.addmm_(gradient.T, h)
            else:
                grad_weight_VD += gradient.T @ h
        ctx.save_for_backward(grad_h_ND, grad_weight_VD)
        ctx.mark_non_differentiable(losses_N)
        return losses_N.sum(), losses_N

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None]:
        grad_h_ND, grad_weight_VD = ctx.saved_tensors
        scale = grad_outputs[0]
        return grad_h_ND * scale.to(grad_h_ND.dtype), grad_weight_VD * scale, None


def _row_losses(logits_NV: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor]:
    """Return each row's loss and its float32 gradient, softmax - [target]; logits may go."""
    if runs_native(logits_NV):
        return cross_entropy_rows(logits_NV, targets_N), logits_NV
    log_probs = F.log_softmax(logits_NV, dim=-1, dtype=torch.float32)
    losses_N = log_probs.gather(1, targets_N[:, None]).squeeze(1).neg()
    gradient = log_probs.exp_()
    gradient.scatter_add_(1, targets_N[:, None], gradient.new_full((len(targets_N), 1), -1))
    return losses_N, gradient


def _spans(rows: int, vocabulary: int, device: str) -> list[slice]:
    step = max(MIN_ROWS, CHUNK_LOGITS.get(device, CHUNK_LOGITS["cuda"]) // vocabulary)
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]


def cross_entropy(h_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> TokenLosses:
    """Return the loss over positions whose target is not `IGNORED`: nats, summed and each."""
    kept = (targets_N != IGNORED).nonzero().squeeze(1)
    total, losses = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
        h_ND.index_select(0, kept), weight_VD, targets_N.index_select(0, kept)
    )
    each_N = torch.zeros(len(targets_N), device=h_ND.device).index_copy_(0, kept, losses)
    return TokenLosses(total, each_N)


def router_z_loss(trace: Sequence[Routing]) -> Tensor:
    """Return mean logsumexp(router logits)^2 over tokens and layers (arXiv 2202.08906)."""
    if not trace:
        return torch.zeros(())
    losses = [r.router_logits_TE.logsumexp(-1).square().mean() for r in trace]
    return torch.stack(losses).mean()
