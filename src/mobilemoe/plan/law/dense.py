"""The law at one number of experts: Chinchilla's form (arXiv 2203.15556, eq. 2)."""

from __future__ import annotations

from dataclasses import dataclass

from mobilemoe.plan.law.reach import Argument, Prediction, check_inside, check_positive, outside

BILLION = 1e9


@dataclass(frozen=True)
class DenseLaw:
    """L = a N^alpha + b D^beta + c of models with `num_experts` expert equivalents.

    N and D are in `unit_active` parameters and `unit_tokens` tokens; `alpha` and `beta` are
    negative (Chinchilla writes them as divisors). The grids are the sweep's values in rising
    order; `expert_grid` holds the E of every run behind the fit.
    """

    a: float
    alpha: float
    b: float
    beta: float
    c: float
    rmse: float
    active_grid: tuple[float, ...]
    token_grid: tuple[float, ...]
    num_experts: float = 1
    expert_grid: tuple[int, ...] = (1,)
    unit_active: float = BILLION
    unit_tokens: float = BILLION
    source: str = ""
    confidence: str = ""

    def loss(self, *, active_params: float, tokens: float, extrapolate: bool = False) -> float:
        """Return the predicted pre-training loss in nats per token.

        Raises:
            MobileMoEError: if an argument, or the law's own E, is outside the fitted sweep and
                `extrapolate` is false, or if an argument is not a positive number at all.
        """
        arguments = self._arguments(active_params, tokens)
        if not extrapolate:
            check_inside(arguments)
        return self._value(active_params, tokens)

    def predict(self, *, active_params: float, tokens: float) -> Prediction:
        """Return the loss, and what lies outside the fitted sweep.

        Raises:
            MobileMoEError: if an argument is not a positive number.
        """
        arguments = self._arguments(active_params, tokens)
        return Prediction(self._value(active_params, tokens), outside(arguments))

    def _arguments(self, active_params: float, tokens: float) -> tuple[Argument, ...]:
        arguments: tuple[Argument, ...] = (
            ("active_params", active_params, self.active_grid),
            ("tokens", tokens, self.token_grid),
            ("num_experts", self.num_experts, self.expert_grid),
        )
        check_positive(arguments)
        return arguments

    def _value(self, active_params: float, tokens: float) -> float:
        capacity: float = self.a * (active_params / self.unit_active) ** self.alpha
        data: float = self.b * (tokens / self.unit_tokens) ** self.beta
        return capacity + data + self.c
