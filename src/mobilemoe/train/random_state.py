"""Torch's random state as tensors. The loop draws nothing itself; what a model draws resumes."""

from __future__ import annotations

import torch
from torch import Tensor

CPU, CUDA = "random.cpu", "random.cuda"


def random_state(device: torch.device) -> dict[str, Tensor]:
    """Return copies of the random states that a run on `device` draws from (uint8)."""
    states = {CPU: torch.get_rng_state()}
    if device.type == "cuda":
        states[CUDA] = torch.cuda.get_rng_state(device)
    return states


def restore_random(states: dict[str, Tensor], device: torch.device) -> None:
    """Draw from `states` on, as `random_state` gave them for the same `device`."""
    torch.set_rng_state(states[CPU])
    if CUDA in states:
        torch.cuda.set_rng_state(states[CUDA], device)
