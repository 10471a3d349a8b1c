"""What a run folder holds, read and checked: the journal of each stage and what is beside it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from mobilemoe.errors import MobileMoEError
from mobilemoe.recipe import STAGE_NAMES
from mobilemoe.train.events import Alarm, ExpertLoads, RolledBack, StepMetrics, StepSkipped
from mobilemoe.train.journal import JOURNAL_FILE, Entry, read_entries

Losses = Mapping[str, float]
ID_LENGTH = 12  # enough of a recipe's hash to tell recipes apart
E = TypeVar("E", StepMetrics, ExpertLoads)


@dataclass(frozen=True)
class StageRecord:
    """One stage: its journal, and its held-out losses by domain (empty where not measured)."""

    name: str
    entries: tuple[Entry, ...]
    before: Losses
    after: Losses

    @cached_property
    def steps(self) -> list[StepMetrics]:
        """The steps that led to the weights of now: without those a rollback undid."""
        return self._lasting(StepMetrics)

    @cached_property
    def seconds(self) -> float:
        """Time of all steps, also of those undone; pauses between two commands do not count."""
        return sum(e.event.seconds for e in self.entries if isinstance(e.event, StepMetrics))

    @property
    def tokens(self) -> float:
        """Positions seen."""
        return float(self.steps[-1].tokens_seen)

    def at(self, step: int) -> float:
        """Return the tokens seen after `step` steps."""
        last = self.steps[-1]
        return step * last.tokens_seen / last.step

    @cached_property
    def skipped(self) -> list[StepSkipped]:
        """The steps that were thrown away."""
        return [e.event for e in self.entries if isinstance(e.event, StepSkipped)]

    @cached_property
    def rollbacks(self) -> list[RolledBack]:
        """The returns to an earlier state."""
        return [e.event for e in self.entries if isinstance(e.event, RolledBack)]

    @cached_property
    def alarms(self) -> list[Alarm]:
        """The warnings."""
        return [e.event for e in self.entries if isinstance(e.event, Alarm)]

    @cached_property
    def loads(self) -> list[ExpertLoads]:
        """The counts of each expert's choices, without those of steps that were undone."""
        return self._lasting(ExpertLoads)

    def _lasting(self, kind: type[E]) -> list[E]:
        """Return the events of one kind that no rollback undid."""
        lasting: list[E] = []
        for entry in self.entries:
            if isinstance(entry.event, kind):
                lasting.append(entry.event)
            elif isinstance(entry.event, RolledBack):
                while lasting and lasting[-1].step > entry.event.to_step:
                    lasting.pop()
        return lasting


@dataclass(frozen=True)
class RunRecord:
    """A run: its stages in the order they were trained, each with at least one step."""

    name: str
    recipe_id: str
    machine: str
    started: str
    recipe: str
    stages: tuple[StageRecord, ...]

    @property
    def tokens(self) -> float:
        """Positions seen in all stages."""
        return sum(stage.tokens for stage in self.stages)

    @property
    def seconds(self) -> float:
        """Time of all steps."""
        return sum(stage.seconds for stage in self.stages)

    @cached_property
    def domains(self) -> list[str]:
        """Every domain with a training or a held-out loss, in order of appearance."""
        names: dict[str, None] = {}
        for stage in self.stages:
            for losses in (*(step.domain_loss for step in stage.steps), stage.before, stage.after):
                names |= dict.fromkeys(losses)
        return list(names)

    def starts(self) -> list[tuple[float, StageRecord]]:
        """Return each stage with the tokens that were seen before it."""
        found, start = [], 0.0
        for stage in self.stages:
            found.append((start, stage))
            start += stage.tokens
        return found


def read_run(folder: Path) -> RunRecord:
    """Read the run in `folder`; stages that have no step yet are left out.

    Raises:
        MobileMoEError: if there is no run, no step yet, or a file is damaged.
    """
    if not folder.is_dir():
        raise MobileMoEError(f"no run in {folder}: there is no such folder")
    places = sorted(path.parent for path in folder.glob(f"stages/*/{JOURNAL_FILE}"))
    stages = [_stage(place) for place in sorted(places, key=_order)]
    kept = tuple(stage for stage in stages if stage.steps)
    if not kept:
        raise MobileMoEError(
            f"nothing to report in {folder}: no step has been trained yet",
            hint=f"a run writes stages/*/{JOURNAL_FILE}; is this the folder of a run?",
        )
    about = _json(folder / "run.json")
    recipe = folder / "recipe.toml"
    return RunRecord(
        name=str(about.get("name") or folder.resolve().name),
        recipe_id=str(about.get("recipe_id") or "")[:ID_LENGTH],
        machine=_machine(about),
        started=str(about.get("started") or ""),
        recipe=recipe.read_text("utf-8", "replace") if recipe.exists() else "",
        stages=kept,
    )


def _order(place: Path) -> tuple[int, str]:
    names: tuple[str, ...] = STAGE_NAMES
    return (names.index(place.name) if place.name in names else len(names), place.name)


def _stage(place: Path) -> StageRecord:
    heldout = place / "heldout.json"
    parts = _json(heldout)
    before, after = (_losses(parts.get(key), f"{heldout}: {key}") for key in ("before", "after"))
    return StageRecord(place.name, tuple(read_entries(place / JOURNAL_FILE)), before, after)


def _json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise MobileMoEError(f"cannot read {path}: {error}") from error
    if not isinstance(values, dict):
        raise MobileMoEError(f"{path} holds no JSON object")
    return values


def _losses(values: Any, where: str) -> Losses:
    """Return the finite losses of `values`; null stands for "not measured"."""
    if values is None:
        return {}
    valid = isinstance(values, dict) and all(
        value is None or type(value) in (int, float) for value in values.values()
    )
    if not valid:
        raise MobileMoEError(f"{where} is {values!r}; allowed: an object of numbers")
    known = {name: value for name, value in values.items() if value is not None}
    return {name: float(value) for name, value in known.items() if math.isfinite(value)}


def _machine(about: Mapping[str, Any]) -> str:
    """Return one line on the machine: its GPU or processor, and its cores."""
    machine = about.get("machine")
    known = dict(machine) if isinstance(machine, Mapping) else {"cpu": machine}
    parts = [str(known[key]) for key in ("gpu", "cpu") if known.get(key)]
    cores = known.get("cores", about.get("cores"))
    return ", ".join([*parts, f"{cores} cores"] if cores else parts)
