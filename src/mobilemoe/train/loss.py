"""Cross-entropy straight from hidden states, a few rows at a time, and the router z-loss.

N positions, D hidden, V vocabulary. Holding all [N, V] logits and their gradient costs more time
in page faults than the mathematics; in chunks both stay in cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mobilemoe.data import IGNORED
from mobilemoe.model import Routing

CHUNK_ROWS = 512


class _LinearCrossEntropy(torch.autograd.Function):
    """Mean of -log softmax(h W^T)[target]; gradients are formed in the forward pass."""

    @staticmethod
    def forward(ctx: Any, h_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> Tensor:
        loss = h_ND.new_zeros(())
        grad_h_ND = torch.empty_like(h_ND)
        grad_weight_VD = torch.zeros_like(weight_VD)
        count = max(1, targets_N.numel())
        for start in range(0, targets_N.numel(), CHUNK_ROWS):
            span = slice(start, start + CHUNK_ROWS)
            h, targets = h_ND[span], targets_N[span]
            log_probs = F.log_softmax(h @ weight_VD.T, dim=-1)
            loss -= log_probs.gather(1, targets[:, None]).sum()
            gradient = log_probs.exp_()
            gradient.scatter_add_(1, targets[:, None], gradient.new_full((len(targets), 1), -1))
            grad_h_ND[span] = gradient @ weight_VD
            grad_weight_VD.addmm_(gradient.T, h)
        ctx.save_for_backward(grad_h_ND.div_(count), grad_weight_VD.div_(count))
        return loss / count

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None]:
        grad_h_ND, grad_weight_VD = ctx.saved_tensors
        (scale,) = grad_outputs
        return grad_h_ND * scale, grad_weight_VD * scale, None


def cross_entropy(h_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> Tensor:
    """Return the mean loss over positions whose target is not `IGNORED` (0 if there is none)."""
    kept = (targets_N != IGNORED).nonzero().squeeze(1)
    loss: Tensor = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
        h_ND.index_select(0, kept), weight_VD, targets_N.index_select(0, kept)
    )
    return loss


def router_z_loss(trace: Sequence[Routing]) -> Tensor:
    """Return mean logsumexp(router logits)^2 over tokens and layers (arXiv 2202.08906)."""
    if not trace:
        return torch.zeros(())
    losses = [r.router_logits_TE.logsumexp(-1).square().mean() for r in trace]
    return torch.stack(losses).mean()
