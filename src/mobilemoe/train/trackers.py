"""Train events for trackio or wandb, imported only when asked for.

Both services speak the same three words: `init`, `log`, `finish`. A run is one run there too,
with every curve named stage/measure; the journal stays the complete record.
"""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, redirect_stdout
from typing import Any, Literal, Protocol, cast

from mobilemoe.errors import MobileMoEError
from mobilemoe.train.events import Alarm, RolledBack, StepMetrics, StepSkipped, TrainEvent

TrackerName = Literal["none", "trackio", "wandb"]
PROJECT = "mobilemoe"
_OFFLINE = {
    "trackio": "trackio needs no account; unset TRACKIO_SPACE_ID to stay on this machine",
    "wandb": "run `wandb login`, or set WANDB_MODE=offline to record on this machine only",
}


class Tracker(Protocol):
    """Where a copy of the curves goes."""

    def log(self, event: TrainEvent) -> Alarm | None:
        """Send one event; an alarm if the service failed, after which nothing more is sent."""
        ...

    def finish(self) -> None:
        """Send what is left and end the run there."""
        ...


class NoTracker:
    """Sends nothing."""

    def log(self, event: TrainEvent) -> Alarm | None:
        """Do nothing."""
        return None

    def finish(self) -> None:
        """Do nothing."""


def tracker(name: TrackerName, run: str, config: Mapping[str, Any]) -> Tracker:
    """Return the tracker called `name` for the run `run`, with the recipe as its `config`.

    Raises:
        MobileMoEError: if the name is unknown, its package is not installed (with the pip
            command) or the service cannot start (with the way to work offline).
    """
    if name == "none":
        return NoTracker()
    if name not in _OFFLINE:
        raise MobileMoEError(f"run.tracker is {name!r}; allowed: none, trackio, wandb")
    try:
        service: Any = importlib.import_module(name)
    except ImportError as error:
        raise MobileMoEError(
            f"run.tracker is {name!r}, which cannot be imported: {error}",
            hint=f"pip install {name}, or set run.tracker to none",
        ) from error
    try:
        with _quiet():
            started = service.init(project=PROJECT, name=run, config=dict(config), resume="allow")
    except Exception as error:  # whatever a foreign service raises, the user needs one way out
        raise MobileMoEError(
            f"{name} cannot start: {str(error).strip() or type(error).__name__}",
            hint=_OFFLINE[name],
        ) from error
    return _Service(name, service, started)


def _quiet() -> AbstractContextManager[object]:
    """Let a service greet on stderr: stdout belongs to the command's own result."""
    return redirect_stdout(sys.stderr)


class _Service:
    """A started run of a foreign service. Its failure never ends the training."""

    def __init__(self, name: str, service: Any, run: Any) -> None:
        self._name, self._service, self._run = name, service, run
        self._counts: dict[str, int] = {}
        self._failed = False

    def log(self, event: TrainEvent) -> Alarm | None:
        values = self._values(event)
        if self._failed or not values:
            return None
        try:
            with _quiet():
                self._run.log({f"{event.stage}/{key}": value for key, value in values.items()})
        except Exception as error:  # foreign code; the journal has the event all the same
            self._failed = True
            step = event.from_step if isinstance(event, RolledBack) else event.step
            message = f"{self._name} failed and gets nothing more: {error}"
            return Alarm(event.stage, step, "tracker", message)
        return None

    def finish(self) -> None:
        if self._failed:
            return
        try:
            with _quiet():
                self._service.finish()  # not the run's: the module would end it once more
        except Exception:  # nothing depends on it: the run is over and its journal complete
            self._failed = True

    def _values(self, event: TrainEvent) -> dict[str, float]:
        match event:
            case StepMetrics():
                return measures(event)
            case StepSkipped():
                return {"skipped": self._count(event.stage, "skipped"), "step": event.step}
            case RolledBack():
                return {"rolled_back": self._count(event.stage, "back"), "step": event.from_step}
            case Alarm():
                return {"alarms": self._count(event.stage, "alarms"), "step": event.step}
        return {}  # expert loads: a table per line is what the journal and the report are for

    def _count(self, stage: str, what: str) -> int:
        key = f"{stage}/{what}"
        self._counts[key] = self._counts.get(key, 0) + 1
        return self._counts[key]


def measures(event: StepMetrics) -> dict[str, float]:
    """Return the numbers of a step by name, without those that are unknown or not finite."""
    names = (
        "step",
        "tokens_seen",
        "loss",
        "z_loss",
        "lr",
        "grad_norm",
        "dropped_share",
        "worst_load",
        "router_entropy",
        "tok_s",
        "mfu",
    )
    values = {name: cast("float | None", getattr(event, name)) for name in names}
    values |= {f"loss/{domain}": loss for domain, loss in event.domain_loss.items()}
    return {
        name: value for name, value in values.items() if value is not None and math.isfinite(value)
    }
