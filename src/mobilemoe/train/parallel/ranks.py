"""The processes of a run: who they are, which rows are whose, how they add up and how they end.

`torchrun` starts them and says in environment variables who is who. Without it there is one
process, which needs no process group. N ranks, P of them share one set of experts ("ep") and
there are N / P such sets ("replica").

    rank            0  1  2  3  4  5  6  7        N = 8, P = 4
    set (replica)   0  0  0  0  1  1  1  1
    part (ep)       0  1  2  3  0  1  2  3        rank r holds experts [part E / P, ...)
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.rendezvous import rendezvous

from mobilemoe.errors import MobileMoEError
from mobilemoe.recipe import Parallel
from mobilemoe.train.parallel.attempt import clean_store
from mobilemoe.train.parallel.watchdog import Watchdog

# A collective's own limit is only the last resort: the watchdog knows first, and says more.
COLLECTIVE_PATIENCE = 20.0
START_TIMEOUT = timedelta(seconds=120)


class Ranks:
    """All processes that train one model, as one of them sees them; each has its own rows.

    This process is number `rank` of `size` and computes on `device`. `all_mesh` lays
    out every rank, `expert_mesh` [ep, replica] those that share experts; both are None for a
    single process.
    """

    def __init__(self, device: torch.device, expert_parallel: int = 1) -> None:
        self.device = device
        self.rank, self.size, self.expert_parallel = 0, 1, expert_parallel
        self.all_mesh: DeviceMesh | None = None
        self.expert_mesh: DeviceMesh | None = None
        self._watchdog: Watchdog | None = None

    @classmethod
    def from_environment(
        cls, parallel: Parallel, device: Literal["auto", "cpu", "cuda"] = "auto"
    ) -> Ranks:
        """Join the processes that `torchrun` started; a world of one if it started none.

        Raises:
            MobileMoEError: if the number of ranks does not fit `parallel`, or the device is
                missing.
        """
        rank, size = _number("RANK", 0), _number("WORLD_SIZE", 1)
        if size % parallel.expert_parallel:
            raise MobileMoEError(
                f"{size} ranks cannot share experts in groups of {parallel.expert_parallel} "
                "(parallel.expert_parallel); allowed: divisors of the number of ranks",
                hint="--set parallel.expert_parallel=1, or start a multiple of it",
            )
        ranks = cls(_device(device), parallel.expert_parallel)
        if size > 1:
            ranks._join(rank, size, parallel.hang_timeout_s)
        return ranks

    def _join(self, rank: int, size: int, hang_timeout_s: float) -> None:
        self.rank, self.size = rank, size
        shared = next(iter(rendezvous("env://", rank, size, timeout=START_TIMEOUT)))[0]
        store = clean_store(shared, rank, size, START_TIMEOUT.total_seconds())
        watchdog = Watchdog(store, rank, size, hang_timeout_s)
        is_cpu = self.device.type == "cpu"
        dist.init_process_group(
            "gloo" if is_cpu else "cpu:gloo,cuda:nccl",
            store=store,
            rank=rank,
            world_size=size,
            timeout=timedelta(seconds=COLLECTIVE_PATIENCE * hang_timeout_s),
            device_id=None if is_cpu else self.device,
        )
        numbers = torch.arange(size)
        self.all_mesh = DeviceMesh(self.device.type, numbers, mesh_dim_names=("all",))
        parts = numbers.view(-1, self.expert_parallel).T.contiguous()
        self.expert_mesh = DeviceMesh(self.device.type, parts, mesh_dim_names=("ep", "replica"))
        watchdog.start()
        self._watchdog = watchdog

    @property
    def part(self) -> int:
        """Which part of the experts this process holds, from 0."""
        return self.rank % self.expert_parallel

    def rows(self, batch_size: int) -> range:
        """Return the rows of a step of `batch_size` rows that this process computes.

        Raises:
            MobileMoEError: if the rows cannot be dealt out evenly.
        """
        if batch_size % self.size:
            raise MobileMoEError(
                f"a step of {batch_size} rows cannot be dealt out to {self.size} ranks; "
                f"allowed: multiples of {self.size}",
                hint="change the stage's batch_tokens, or the number of ranks",
            )
        share = batch_size // self.size
        return range(self.rank * share, (self.rank + 1) * share)

    def total(self, values: Tensor) -> Tensor:
        """Return the sum of `values` over all processes, on the device of `values`."""
        if self.size == 1:
            return values
        summed = values.detach().clone()
        dist.all_reduce(summed)
        if self._watchdog is not None:
            self._watchdog.beat()
        return summed

    def wait(self) -> None:
        """Wait until all processes are here, however long one of them works and beats."""
        if self._watchdog is not None:
            self._watchdog.meet()

    def decided(self, *wishes: bool) -> tuple[bool, ...]:
        """Return the wishes of rank 0, on every rank."""
        own = torch.tensor([float(wish and self.rank == 0) for wish in wishes])
        return tuple(bool(value) for value in self.total(own))

    def from_first(self, text: str) -> str:
        """Return the `text` that rank 0 gives; that of the others is not used."""
        if self.size == 1:
            return text
        given = [text]
        dist.broadcast_object_list(given)
        return given[0]

    def beat(self, step: int) -> None:
        """Tell the other processes that this one is alive and begins `step`.

        A step that takes longer than `parallel.hang_timeout_s` counts as hung; one that does not
        follow on the step before (the first, after a resume) may take ten times as long.
        """
        if self._watchdog is not None:
            self._watchdog.beat(step)

    def patience(self) -> AbstractContextManager[None]:
        """Return a context in which ranks may take ten times `parallel.hang_timeout_s`.

        For what is long and not a step: checkpoints, evaluation. A dead rank is still noticed
        in the usual time.
        """
        return nullcontext() if self._watchdog is None else self._watchdog.patience()

    def close(self) -> None:
        """Leave the other processes; they go on without expecting a sign of life."""
        if self._watchdog is not None:
            self._watchdog.stop()
            self._watchdog = None
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdecimal():
        raise MobileMoEError(
            f"environment variable {name} is {text!r}; allowed: a whole number",
            hint="start the ranks with torchrun, which sets it",
        )
    return int(text)


def _device(wanted: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """Return the device of this process: the GPU with its number on this machine, if any."""
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    number, there = _number("LOCAL_RANK", 0), torch.cuda.device_count()
    if number >= there:
        raise MobileMoEError(
            f"local rank {number} needs GPU {number}; this machine shows {there}",
            hint="torchrun --nproc-per-node with at most one rank per GPU, or run.device = 'cpu'",
        )
    device = torch.device("cuda", number)
    torch.cuda.set_device(device)
    return device
