"""Spoils chosen steps of a run from outside, through hooks that torch offers to everyone."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Literal

import torch
from torch import Tensor

from mobilemoe.train import Trainer

Kind = Literal["nan", "loss", "gradient"]
KINDS: tuple[Kind, ...] = ("nan", "loss", "gradient")
FACTOR: dict[Kind, float] = {"nan": float("nan"), "loss": 100.0, "gradient": 1e8}


def poison(trainer: Trainer, positions: Container[int], kind: Kind) -> None:
    """Make the steps at `positions` NaN, of huge loss, or of huge gradient (loss unchanged)."""

    def spoilt(value: Tensor) -> Tensor:
        return value * FACTOR[kind] if trainer.step in positions else value

    if kind == "gradient":
        for parameter in trainer.model.parameters():
            parameter.register_hook(spoilt)
    else:
        hook: Callable[..., Tensor] = lambda module, arguments, output: spoilt(output)  # noqa: E731
        trainer.model.model.norm.register_forward_hook(hook)


def copies(trainer: Trainer) -> dict[str, Tensor]:
    """Copies of everything that an optimiser step changes."""
    tensors = dict(trainer.model.state_dict())
    tensors |= {f"bias.{i}": bias for i, bias in enumerate(trainer._balancer.bias)}
    for index, state in enumerate(trainer._optimizer.state.values()):
        tensors |= {f"{key}.{index}": value for key, value in state.items()}
    return {name: tensor.clone() for name, tensor in tensors.items()}


def assert_same_bits(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    """Every tensor equal to the bit, names included."""
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name].view(torch.int32), b[name].view(torch.int32)), name
