"""The norm of a gradient that is spread over the ranks."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from mobilemoe.train.world import World

SMALLEST = 1e-6  # torch's own guard against dividing by zero


@torch.no_grad()
def clip_grad_norm(parameters: Iterable[Tensor], max_norm: float, world: World) -> Tensor:
    """Scale the gradients so that their norm over all ranks is at most `max_norm`.

    Returns the norm before clipping, float32, the same on every rank. Every element belongs to
    exactly one rank (`prepare_model`), so squares add up; they do so in float64.
    """
    grads = [_local(p.grad) for p in parameters if p.grad is not None]
    norms = torch.stack(torch._foreach_norm(grads)) if grads else torch.zeros(1)
    total = world.total(norms.double().square().sum()).sqrt()
    scale = (max_norm / (total + SMALLEST)).clamp(max=1.0).float()
    torch._foreach_mul_(grads, scale)
    return total.float()


def _local(grad: Tensor) -> Tensor:
    return grad.to_local() if isinstance(grad, DTensor) else grad
