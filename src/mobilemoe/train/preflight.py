"""Whether a run can end where it is about to start: memory and disk, said before the first step."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from mobilemoe.engine.memory_limits import ADDRESS_SPACE, memory_limits
from mobilemoe.engine.plan import megabytes
from mobilemoe.engine.system_files import ROOT
from mobilemoe.errors import MobileMoEError
from mobilemoe.plan.cluster import Layout
from mobilemoe.recipe import Recipe, Stage
from mobilemoe.train.needs import Need, cpu_memory, disk, gpu_memory

# The estimate of memory is right within this factor: beyond it the run cannot fit, inside it
# the user is warned.
MEMORY_FACTOR = 1.5
MemoryOf = Callable[[Recipe, Stage, Layout], Need]


@dataclass(frozen=True)
class Room:
    """Bytes that are left for each process, and which limit says so."""

    name: str
    left: int


@dataclass(frozen=True)
class Place:
    """The machine: `ranks` processes, `local` of them on this one."""

    ranks: int
    local: int

    @classmethod
    def here(cls) -> Place:
        """Return what `torchrun` says; one process without it."""
        ranks, local = (
            int(os.environ.get(name, "1")) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE")
        )
        return cls(ranks, local)

    def layout(self, recipe: Recipe) -> Layout:
        """Return how `recipe` is spread over the processes."""
        even = self.ranks % self.local == 0
        return Layout.of(recipe, self.ranks, self.local if even else self.ranks)


def check_run(recipe: Recipe, out: Path, root: Path = ROOT) -> tuple[str, ...]:
    """Return if the run fits the memory and the disk; warnings, if it may turn out not to.

    `out` is the run's folder, or where it will be; what a resumed run left in it is counted.
    `root` stands in for the file system root in tests.

    Raises:
        MobileMoEError: if it does not fit: what is needed, what is left, which setting helps.
    """
    place = Place.here()
    _check_disk(recipe, out, place.ranks)
    uses_gpu = recipe.run.device == "cuda" or (
        recipe.run.device == "auto" and torch.cuda.is_available()
    )
    room = _gpu_room() if uses_gpu else cpu_room(place.local, root)
    needs: MemoryOf = gpu_memory if uses_gpu else cpu_memory
    return () if room is None else check_memory(recipe, place.layout(recipe), room, needs)


def _check_disk(recipe: Recipe, out: Path, ranks: int) -> None:
    need, there = disk(recipe, ranks), _bytes_in(out / "stages")
    missing = max(need.total - there, need.parts["the state being written"])
    free = shutil.disk_usage(_existing(out)).free
    if missing > free:
        parts = ", ".join(f"{name} {megabytes(size)}" for name, size in need.parts.items())
        raise MobileMoEError(
            f"{out}: the disk has {megabytes(free)} free, the run needs {megabytes(missing)} "
            f"more ({parts}; data not counted)",
            hint="free some space, or --out FOLDER on another disk",
        )


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _existing(path: Path) -> Path:
    """Return the nearest folder above `path`, or itself, that is there."""
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())


def cpu_room(processes: int, root: Path = ROOT) -> Room | None:
    """Return what each of `processes` on this machine may still take; None if it is unknown."""
    rooms = [
        Room(limit.name, limit.room if limit.name == ADDRESS_SPACE else limit.room // processes)
        for limit in memory_limits(root).limits
    ]
    return min(rooms, key=lambda room: room.left, default=None)


def _gpu_room() -> Room | None:
    if not torch.cuda.is_available():
        return None
    return Room("free memory of the GPU", torch.cuda.mem_get_info()[0])


def check_memory(
    recipe: Recipe, layout: Layout, room: Room, needs: MemoryOf = cpu_memory
) -> tuple[str, ...]:
    """Return if every stage fits into `room`; a warning, if that is not sure.

    Raises:
        MobileMoEError: naming the stage, its largest part, and the first setting that helps.
    """
    stage, need = _fullest(recipe, layout, needs)
    if need.total <= room.left:
        return ()
    message = (
        f"{recipe.name}: {stage.name} needs about {megabytes(need.total)} of memory, "
        f"{megabytes(room.left)} are left ({room.name}); the largest part is {need.largest}, "
        f"{megabytes(need.parts[need.largest])}"
    )
    hint = _hint(recipe, layout, room, needs)
    if need.total > MEMORY_FACTOR * room.left:
        raise MobileMoEError(message, hint=hint)
    return (f"{message}; {hint}",)


def _fullest(recipe: Recipe, layout: Layout, needs: MemoryOf) -> tuple[Stage, Need]:
    found = [(stage, needs(recipe, stage, layout)) for stage in recipe.stages]
    return max(found, key=lambda pair: pair[1].total)


def _hint(recipe: Recipe, layout: Layout, room: Room, needs: MemoryOf) -> str:
    for setting, changed in _knobs(recipe, layout):
        _, need = _fullest(recipe, changed, needs)
        if need.total <= room.left:
            return f"{setting}: then about {megabytes(need.total)}"
    return "take a smaller model, a shorter context, or a machine with more memory"


def _knobs(recipe: Recipe, layout: Layout) -> Iterator[tuple[str, Layout]]:
    """Yield changes that need less memory, those that cost least time first."""
    yield from _fewer_rows(recipe, layout)
    if not layout.activation_checkpointing:
        setting = "--set run.activation_checkpointing=true"
        changed = replace(layout, activation_checkpointing=True)
        yield setting, changed
        for rows, single in _fewer_rows(recipe, changed):
            yield f"{setting} {rows}", single


def _fewer_rows(recipe: Recipe, layout: Layout) -> Iterator[tuple[str, Layout]]:
    rows = max(layout.micro_rows(stage) for stage in recipe.stages)
    while rows > 1:
        rows //= 2
        yield f"--set run.micro_batch_rows={rows}", replace(layout, micro_batch_rows=rows)
