"""How a fit is made, apart from its runs and from what is held fixed."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from mobilemoe.errors import MobileMoEError
from mobilemoe.plan.law.dense import BILLION

CHINCHILLA_HUBER = 1e-3  # arXiv 2203.15556, appendix D.3


@dataclass(frozen=True)
class FitOptions:
    """Settings of a fit; the defaults suit some dozens to some thousands of runs.

    `huber` is where residuals of ln(loss) stop counting as squares. `starts` random starts are
    drawn from `seed`, as are the `bootstrap` draws (0: no intervals), whose central `confidence`
    is the interval. `c_towards` pulls c there as strongly as `c_strength` runs would that miss by
    as much in ln(loss); the paper does so in its fits per granularity (arXiv 2605.27358).
    `leave_out` asks for the error on each size, token budget and E when it is held out.
    The units are those of the resulting law.

    Raises:
        MobileMoEError: naming the setting, its value and what is allowed.
    """

    huber: float = CHINCHILLA_HUBER
    starts: int = 64
    bootstrap: int = 200
    confidence: float = 0.9
    seed: int = 0
    c_towards: float | None = None
    c_strength: float = 1.0
    leave_out: bool = True
    unit_active: float = BILLION
    unit_tokens: float = BILLION

    def __post_init__(self) -> None:
        for name in ("huber", "c_strength", "unit_active", "unit_tokens"):
            _check(name, getattr(self, name), _is_positive(getattr(self, name)), "above 0")
        _check("starts", self.starts, self.starts >= 1, "1 or more")
        enough = self.bootstrap == 0 or self.bootstrap >= 10
        _check("bootstrap", self.bootstrap, enough, "0 (no intervals), or 10 or more")
        _check("confidence", self.confidence, 0 < self.confidence < 1, "between 0 and 1")
        _check("seed", self.seed, self.seed >= 0, "0 or more")
        towards = self.c_towards
        _check("c_towards", towards, towards is None or _is_positive(towards), "above 0")


def _is_positive(value: float) -> bool:
    return isfinite(value) and value > 0


def _check(name: str, value: object, is_sound: bool, allowed: str) -> None:
    if not is_sound:
        raise MobileMoEError(
            f"fit: {name} is {value!r}; allowed: {allowed}", hint=f"correct {name}"
        )
