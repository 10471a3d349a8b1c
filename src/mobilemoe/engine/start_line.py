"""What a model runs as, in two lines that can be pasted into a report."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mobilemoe.checkpoint import Checkpoint
from mobilemoe.checkpoint.fingerprint import fingerprint
from mobilemoe.engine.plan import MemoryPlan
from mobilemoe.engine.threads import thread_plan
from mobilemoe.weights import WeightFormat


@dataclass(frozen=True)
class StartLine:
    """The versions of everything that a result depends on; `str()` makes the two lines.

    `fingerprint`: see `checkpoint.fingerprint`. `threads_reason` says where `threads` comes
    from.
    """

    mobilemoe: str
    model: str
    fingerprint: str
    weight_format: WeightFormat
    activations: str
    instruction_set: str
    threads: int
    threads_reason: str
    memory: MemoryPlan

    def __str__(self) -> str:
        return (
            f"mobilemoe {self.mobilemoe}: {self.model} {self.fingerprint}, "
            f"{self.weight_format} weights, {self.activations} activations; "
            f"{self.instruction_set}, {self.threads} thread{'s' * (self.threads != 1)} "
            f"({self.threads_reason})\n"
            f"memory {self.memory}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return all of it by name, for JSON; `memory` holds bytes and their `total`."""
        values = asdict(self)
        values["memory"]["total"] = self.memory.total
        return values


def start_line(
    checkpoint: Checkpoint,
    activations: str,
    instruction_set: str,
    threads: int,
    memory: MemoryPlan,
) -> StartLine:
    """Describe how `checkpoint` runs; reads a little of each weights file.

    Raises:
        CheckpointError: if one cannot be read.
    """
    plan = thread_plan()
    asked = "" if threads == plan.threads else f"asked for; by default {plan.threads}: "
    return StartLine(
        mobilemoe=version("mobilemoe"),
        model=display_name(checkpoint.folder),
        fingerprint=fingerprint(checkpoint),
        weight_format=checkpoint.weight_format,
        activations=activations,
        instruction_set=instruction_set,
        threads=threads,
        threads_reason=f"{asked}{plan.reason}",
        memory=memory,
    )


def display_name(folder: Path) -> str:
    """Return the hub id of a folder in the hub's cache, else the folder's own name."""
    folder = folder.resolve()
    repository = folder.parents[1].name if len(folder.parents) > 1 else ""
    if folder.parent.name == "snapshots" and repository.startswith("models--"):
        return repository.removeprefix("models--").replace("--", "/", 1)
    return folder.name
