"""The devices of a run as the loop sees them. One process is a world of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from mobilemoe.model import MobileMoE
from mobilemoe.recipe import Run
from mobilemoe.train.state import OneFile, Store

DomainSums = Mapping[str, tuple[float, int]]  # summed loss and learnt tokens by domain


class World(Protocol):
    """All processes that train one model together; each computes its own rows of a step."""

    @property
    def rank(self) -> int:
        """The number of this process, from 0."""
        ...

    @property
    def size(self) -> int:
        """How many processes there are."""
        ...

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        ...

    def rows(self, batch_size: int) -> range:
        """Return which of a step's rows this process computes."""
        ...

    def total(self, values: Tensor) -> Tensor:
        """Return the sum of `values` over all processes."""
        ...

    def prepare(self, model: MobileMoE, run: Run) -> None:
        """Put `model` where it is trained; parameters may become other objects."""
        ...

    def store(self) -> Store:
        """Return how the training state is kept."""
        ...

    def merged(self, sums: DomainSums) -> DomainSums:
        """Return the sums of all processes' values by name."""
        ...

    def clip_grad_norm(self, parameters: Iterable[Tensor], max_norm: float) -> Tensor:
        """Scale the gradients to a norm of `max_norm` at most; return the norm before.

        The norm is that of all processes' gradients together, the same value everywhere.
        """
        ...

    def beat(self, step: int) -> None:
        """Tell the other processes that this one is alive and begins `step`."""
        ...


@dataclass(frozen=True)
class Alone:
    """A world of one process; nothing is sent anywhere."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    rank: int = 0
    size: int = 1

    def rows(self, batch_size: int) -> range:
        """Return all rows."""
        return range(batch_size)

    def total(self, values: Tensor) -> Tensor:
        """Return `values`."""
        return values

    def prepare(self, model: MobileMoE, run: Run) -> None:
        """Move `model` to the device."""
        model.to(self.device)

    def store(self) -> Store:
        """Return a single file."""
        return OneFile()

    def merged(self, sums: DomainSums) -> DomainSums:
        """Return `sums`."""
        return sums

    def clip_grad_norm(self, parameters: Iterable[Tensor], max_norm: float) -> Tensor:
        """Scale the gradients to a norm of `max_norm` at most; return the norm before."""
        return torch.nn.utils.clip_grad_norm_(parameters, max_norm)

    def beat(self, step: int) -> None:
        """Tell nobody."""
