"""A fitted law with everything that says how far to trust it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic

import numpy as np

from mobilemoe.errors import MobileMoEError
from mobilemoe.plan.fit.held_out import HeldOut
from mobilemoe.plan.law.dense import DenseLaw
from mobilemoe.plan.law.moe import MoELaw
from mobilemoe.plan.law.reach import Prediction
from mobilemoe.plan.law.table import Law


@dataclass(frozen=True)
class Interval:
    """The central share of the bootstrap draws: percentiles of what they gave."""

    low: float
    high: float


@dataclass(frozen=True)
class Coefficient:
    """One coefficient: its value, its interval (None: not asked for), and whether it was fixed."""

    name: str
    value: float
    interval: Interval | None
    fixed: bool


@dataclass(frozen=True)
class LawFit(Generic[Law]):
    """The law, its coefficients with intervals, and its errors.

    `residuals` are predicted minus measured loss in nats per token, in the order of the runs;
    `seed_noise` is the standard deviation between seeds of one configuration (None: there is
    one seed each). `draws` are the laws of the bootstrap, `held_out` the errors on scales that
    were left out, `warnings` sentences on what not to rely on.
    """

    law: Law
    coefficients: tuple[Coefficient, ...]
    residuals: tuple[float, ...]
    seed_noise: float | None
    objective: float
    confidence: float
    draws: tuple[Law, ...]
    held_out: tuple[HeldOut, ...]
    warnings: tuple[str, ...]

    @property
    def intervals(self) -> dict[str, Interval]:
        """The interval of each coefficient that was fitted, by its name."""
        return {c.name: c.interval for c in self.coefficients if c.interval is not None}

    def loss_interval(
        self, *, active_params: float, tokens: float, num_experts: float | None = None
    ) -> tuple[Prediction, Interval]:
        """Return the predicted loss and the interval that the uncertain coefficients leave it.

        It is the uncertainty of the law's mean, without the noise of one run. `num_experts` is
        for a joint law only.

        Raises:
            MobileMoEError: if the fit has no bootstrap draws, or `num_experts` is missing or
                does not apply.
        """
        point = _point(self.law, active_params, tokens, num_experts)
        values = [_predict(law, point).loss for law in self._some_draws()]
        return _predict(self.law, point), interval_of(values, self.confidence)

    def _some_draws(self) -> tuple[Law, ...]:
        if not self.draws:
            raise MobileMoEError(
                "the fit has no bootstrap draws, so no intervals", hint="fit with bootstrap=200"
            )
        return self.draws


def interval_of(values: list[float], confidence: float) -> Interval:
    """Return the central `confidence` of `values`."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return Interval(float(low), float(high))


def _point(
    law: MoELaw | DenseLaw, active_params: float, tokens: float, num_experts: float | None
) -> dict[str, float]:
    point = {"active_params": active_params, "tokens": tokens}
    if isinstance(law, MoELaw) == (num_experts is None):
        needed = "needs" if num_experts is None else "has no"
        raise MobileMoEError(
            f"num_experts is {num_experts!r}; this law {needed} num_experts",
            hint="a joint law takes it, a dense one is for one E",
        )
    return point if num_experts is None else {**point, "num_experts": num_experts}


def _predict(law: MoELaw | DenseLaw, point: dict[str, float]) -> Prediction:
    return law.predict(**point)
