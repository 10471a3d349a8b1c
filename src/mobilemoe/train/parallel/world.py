"""Many processes as the training loop sees them: its world, and how its state is kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from mobilemoe.model import MobileMoE
from mobilemoe.recipe import Run
from mobilemoe.train.parallel.checkpoint import (
    LATEST,
    forget_distributed,
    load_distributed,
    save_distributed,
)
from mobilemoe.train.parallel.clip import clip_grad_norm
from mobilemoe.train.parallel.ranks import Ranks
from mobilemoe.train.parallel.shard import prepare_model
from mobilemoe.train.parallel.tensors import gather_full
from mobilemoe.train.state import OneFile, Progress, Store
from mobilemoe.train.world import DomainSums


@dataclass(frozen=True)
class RankWorld:
    """The `World` of the processes that `torchrun` started, or of a single one."""

    ranks: Ranks

    @property
    def rank(self) -> int:
        """The number of this process, from 0."""
        return self.ranks.rank

    @property
    def size(self) -> int:
        """How many processes there are."""
        return self.ranks.size

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        return self.ranks.device

    def prepare(self, model: MobileMoE, run: Run) -> None:
        """Move `model` to this process's device and spread it over all of them."""
        prepare_model(model, self.ranks, run)

    def store(self) -> Store:
        """Return how the state is kept: in pieces, if there are several processes."""
        return ShardedStore(self.ranks) if self.size > 1 else SingleStore(self.ranks)

    def rows(self, batch_size: int) -> range:
        """Return which of a step's rows this process computes; see `Ranks.rows`."""
        return self.ranks.rows(batch_size)

    def total(self, values: Tensor) -> Tensor:
        """Return the sum of `values` over all processes."""
        return self.ranks.total(values)

    def merged(self, sums: DomainSums) -> DomainSums:
        """Return the sums of all processes' values by name."""
        if self.size == 1:
            return sums
        gathered: list[DomainSums] = [{} for _ in range(self.size)]
        dist.all_gather_object(gathered, dict(sums))
        names = sorted({name for own in gathered for name in own})
        nothing = (0.0, 0)
        return {
            name: (
                sum(own.get(name, nothing)[0] for own in gathered),
                sum(own.get(name, nothing)[1] for own in gathered),
            )
            for name in names
        }

    def clip_grad_norm(self, parameters: Iterable[Tensor], max_norm: float) -> Tensor:
        """Scale the gradients to a norm of `max_norm` at most; return the norm before."""
        return clip_grad_norm(parameters, max_norm, self)

    def beat(self, step: int) -> None:
        """Tell the other processes that this one is alive and begins `step`."""
        self.ranks.beat(step)


@dataclass(frozen=True)
class ShardedStore:
    """A state that every process writes and reads its own part of."""

    ranks: Ranks

    def save(self, folder: Path, tensors: Mapping[str, Tensor], progress: Progress) -> None:
        """Write a checkpoint; see `save_distributed`."""
        save_distributed(folder, tensors, progress, self.ranks)

    def load(self, folder: Path, into: Mapping[str, Tensor]) -> Progress | None:
        """Overwrite the values of `into`; return the progress, None if nothing was saved yet."""
        found = load_distributed(folder, into, self.ranks)
        if found is None:
            return None
        with torch.no_grad():
            for name, value in found[0].items():
                into[name].copy_(value)
        return found[1]

    def finish(self, folder: Path, tensors: Mapping[str, Tensor], progress: Progress) -> None:
        """Write the whole state as one file, for the next stage and for the checkpoints."""
        with self.ranks.patience():  # of the first, which writes, and so of those that wait
            whole = gather_full(tensors, self.ranks)
            if self.ranks.rank == 0:
                OneFile().save(folder, whole, progress)
            self.ranks.wait()


@dataclass(frozen=True)
class SingleStore(OneFile):
    """The store of a single process, which can go on where several stopped."""

    ranks: Ranks

    def save(self, folder: Path, tensors: Mapping[str, Tensor], progress: Progress) -> None:
        """Write one file, which takes the place of what several processes wrote."""
        super().save(folder, tensors, progress)
        forget_distributed(folder)

    def load(self, folder: Path, into: Mapping[str, Tensor]) -> Progress | None:
        """Overwrite the values of `into`; return the progress, None if nothing was saved yet."""
        if (folder / LATEST).exists():
            return ShardedStore(self.ranks).load(folder, into)
        return super().load(folder, into)
