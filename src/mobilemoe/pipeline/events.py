"""What a run says besides its steps; the library itself prints nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mobilemoe.train.events import TrainEvent


@dataclass(frozen=True)
class Prepared:
    """Part of the data is ready: `done` of `total` of `what`."""

    what: str
    done: int
    total: int


@dataclass(frozen=True)
class DataReady:
    """The data is open; `lines` account for its records and tokens, by source and by stage."""

    lines: tuple[str, ...]


@dataclass(frozen=True)
class Warned:
    """The run may turn out not to fit this machine; it goes on."""

    message: str


@dataclass(frozen=True)
class StageStarted:
    """A stage begins, or goes on after `step` steps."""

    stage: str
    step: int


@dataclass(frozen=True)
class Saved:
    """The state after `step` is on disk."""

    stage: str
    step: int
    seconds: float


@dataclass(frozen=True)
class Finished:
    """A stage is done. Losses are nats per token by domain, held-out, before and after it."""

    stage: str
    before: Mapping[str, float]
    after: Mapping[str, float]
    resumed: bool


RunEvent = TrainEvent | Prepared | DataReady | Warned | StageStarted | Saved | Finished
Watch = Callable[[RunEvent], None]


class Stopped(Exception):  # noqa: N818 - a request, not an error
    """The user asked to stop; everything is saved."""
