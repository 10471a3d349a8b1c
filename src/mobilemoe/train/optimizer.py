"""AdamW whose whole state exists from the start, so that a checkpoint always holds the same."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mobilemoe.recipe import Optimizer

MOMENTS = ("exp_avg", "exp_avg_sq")


def adamw(trained: Mapping[str, Tensor], constants: Optimizer) -> torch.optim.AdamW:
    """Return the optimiser of `trained`: matrices decay, norms do not; all moments are zero."""
    matrices = [t for t in trained.values() if t.dim() >= 2]
    vectors = [t for t in trained.values() if t.dim() < 2]
    groups = [
        {"params": matrices, "weight_decay": constants.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    betas = (constants.beta1, constants.beta2)
    optimizer = torch.optim.AdamW(groups, betas=betas, eps=constants.eps, fused=True)
    for tensor in trained.values():
        state = optimizer.state[tensor]
        state["step"] = torch.zeros((), device=tensor.device)
        for moment in MOMENTS:
            state[moment] = torch.zeros_like(tensor, memory_format=torch.preserve_format)
    return optimizer


def optimizer_state(
    optimizer: torch.optim.Optimizer, trained: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the optimiser's own tensors as `kind.name`; writing into them restores it."""
    return {
        f"{kind}.{name}": optimizer.state[tensor][kind]
        for name, tensor in trained.items()
        for kind in ("step", *MOMENTS)
    }
