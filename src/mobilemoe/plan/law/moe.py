"""The joint law of one architecture: loss from active parameters, tokens and experts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from statistics import fmean

from mobilemoe.plan.law.dense import BILLION, DenseLaw
from mobilemoe.plan.law.experts import effective_experts
from mobilemoe.plan.law.reach import Argument, Prediction, check_inside, check_positive, outside


@dataclass(frozen=True)
class MoELaw:
    """One fit of the joint law (arXiv 2502.05172): nine coefficients, its error, its sweep.

    L = a Ê^delta N^(alpha + gamma ln Ê) + b Ê^omega D^(beta + zeta ln Ê) + c, with N and D in
    `unit_active` parameters and `unit_tokens` tokens (billions in the publications).
    `active_grid` and `token_grid` are the sweep's values (parameters and tokens, not units) in
    rising order, `expert_grid` its expert equivalents; `rmse` is the fit's error in loss.
    `source` and `confidence` say where the coefficients come from and how sure they are.

    The fit knows nothing outside its own sweep: trillions of tokens or millions of parameters
    give a number that means nothing, so `loss` refuses them and `predict` marks them.
    """

    a: float
    delta: float
    alpha: float
    gamma: float
    b: float
    omega: float
    beta: float
    zeta: float
    c: float
    rmse: float
    active_grid: tuple[float, ...]
    token_grid: tuple[float, ...]
    expert_grid: tuple[int, ...]
    unit_active: float = BILLION
    unit_tokens: float = BILLION
    source: str = ""
    confidence: str = ""

    def loss(
        self,
        *,
        active_params: float,
        tokens: float,
        num_experts: float,
        extrapolate: bool = False,
    ) -> float:
        """Return the predicted pre-training loss in nats per token.

        Raises:
            MobileMoEError: if an argument is outside the fitted sweep and `extrapolate` is
                false, or is not a positive number at all.
        """
        arguments = self._arguments(active_params, tokens, num_experts)
        if not extrapolate:
            check_inside(arguments)
        return self._value(active_params, tokens, num_experts)

    def predict(self, *, active_params: float, tokens: float, num_experts: float) -> Prediction:
        """Return the loss, and which arguments lie outside the fitted sweep.

        Raises:
            MobileMoEError: if an argument is not a positive number, or fewer than one expert.
        """
        arguments = self._arguments(active_params, tokens, num_experts)
        return Prediction(self._value(active_params, tokens, num_experts), outside(arguments))

    def mean_loss(self, num_experts: float) -> float:
        """Return the mean loss of `num_experts` over the sweep's parameters and tokens."""
        return fmean(
            self.loss(active_params=active, tokens=tokens, num_experts=num_experts)
            for active in self.active_grid
            for tokens in self.token_grid
        )

    def best_num_experts(self, choices: Sequence[int] | None = None) -> int:
        """Return the expert count of `choices` (default: the sweep's) with the lowest mean loss."""
        return min(choices or self.expert_grid, key=self.mean_loss)

    def is_tie(self, loss: float, lowest: float) -> bool:
        """Whether the fit's error leaves open which of two losses is the lower one."""
        return loss - lowest <= self.rmse

    def dense_law(self, num_experts: float) -> DenseLaw:
        """Return what the law is at one E: Chinchilla's form (arXiv 2203.15556).

        Raises:
            MobileMoEError: if there is less than one expert.
        """
        experts = effective_experts(num_experts)
        return DenseLaw(
            a=self.a * experts**self.delta,
            alpha=self.alpha + self.gamma * log(experts),
            b=self.b * experts**self.omega,
            beta=self.beta + self.zeta * log(experts),
            c=self.c,
            rmse=self.rmse,
            active_grid=self.active_grid,
            token_grid=self.token_grid,
            num_experts=num_experts,
            expert_grid=self.expert_grid,
            unit_active=self.unit_active,
            unit_tokens=self.unit_tokens,
            source=self.source,
            confidence=self.confidence,
        )

    def _arguments(
        self, active_params: float, tokens: float, num_experts: float
    ) -> tuple[Argument, ...]:
        arguments: tuple[Argument, ...] = (
            ("active_params", active_params, self.active_grid),
            ("tokens", tokens, self.token_grid),
            ("num_experts", num_experts, self.expert_grid),
        )
        check_positive(arguments)
        return arguments

    def _value(self, active_params: float, tokens: float, num_experts: float) -> float:
        return self.dense_law(num_experts).loss(
            active_params=active_params, tokens=tokens, extrapolate=True
        )
