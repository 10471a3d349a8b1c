"""What a demo run tells whoever watches it; the library itself prints nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mobilemoe.train import StepMetrics


@dataclass(frozen=True)
class Started:
    """A part of the run begins; `detail` is one line for a person."""

    part: str
    detail: str


@dataclass(frozen=True)
class Advanced:
    """`done` of `total` units of `part` are finished; training also reports the step."""

    part: str
    done: int
    total: int
    metrics: StepMetrics | None = None
    tok_s: float | None = None


@dataclass(frozen=True)
class Finished:
    """A part is done; `resumed` says that an earlier start had done it."""

    part: str
    summary: str
    resumed: bool


@dataclass(frozen=True)
class Scheduled:
    """How many tokens each training stage will see, in order."""

    tokens: Mapping[str, int]


Event = Started | Advanced | Finished | Scheduled
Watch = Callable[[Event], None]


class Stopped(Exception):  # noqa: N818 - a request, not an error
    """The user asked to stop; everything up to here is saved."""
