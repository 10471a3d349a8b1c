"""The on-device MoE scaling law: loss from active parameters, tokens and experts.

    L(N, D, E) = A Ê^delta N^(alpha + gamma ln Ê) + B Ê^omega D^(beta + zeta ln Ê) + c

N are active parameters and D training tokens, both in billions; Ê is the saturating
transform of the number of expert equivalents E. Source: "MobileMoE: Scaling On-Device
Mixture of Experts" (arXiv 2605.27358), the joint fit of its sweep over E. The transform is
that of "Unified scaling laws for routed language models" (arXiv 2202.01169). With a fixed
Ê the form is Chinchilla's (arXiv 2203.15556).

The fit knows nothing outside its own sweep: trillions of tokens or millions of parameters
give a number that means nothing, so `loss` refuses them unless told otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, log
from statistics import fmean

from mobilemoe.errors import MobileMoEError

BILLION = 1e9


def effective_experts(num_experts: float, start: float = 1.0, limit: float = 32.0) -> float:
    """Return Ê, the number of experts as the law sees it: E at `start`, at most `limit`.

    1/Ê = 1/(E - 1 + 1/(1/start - 1/limit)) + 1/limit (arXiv 2202.01169).

    Raises:
        MobileMoEError: if `num_experts` is not a finite number of at least 1.
    """
    if not (isfinite(num_experts) and num_experts >= 1):
        raise MobileMoEError(f"num_experts is {num_experts!r}; allowed: a number from 1 up")
    return 1 / (1 / (num_experts - 1 + 1 / (1 / start - 1 / limit)) + 1 / limit)


@dataclass(frozen=True)
class MoELaw:
    """One fit of the law: its nine coefficients, its error and the sweep that it was fitted on.

    `active_grid` and `token_grid` are the sweep's values (parameters and tokens, not
    billions), `expert_grid` its expert equivalents; `rmse` is the fit's error in loss.
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
        asked = (
            ("active_params", active_params, self.active_grid),
            ("tokens", tokens, self.token_grid),
            ("num_experts", num_experts, self.expert_grid),
        )
        for name, value, grid in asked:
            _check_range(name, value, grid, extrapolate)
        experts = effective_experts(num_experts)
        capacity = self.a * experts**self.delta
        data = self.b * experts**self.omega
        N, D = active_params / BILLION, tokens / BILLION
        loss: float = (
            capacity * N ** (self.alpha + self.gamma * log(experts))
            + data * D ** (self.beta + self.zeta * log(experts))
            + self.c
        )
        return loss

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


def _check_range(name: str, value: float, grid: Sequence[float], extrapolate: bool) -> None:
    if not (isfinite(value) and value > 0):
        raise MobileMoEError(f"{name} is {value!r}; allowed: a positive number")
    low, high = grid[0], grid[-1]
    if not extrapolate and not low <= value <= high:
        raise MobileMoEError(
            f"{name} is {value:g}, outside the law's fitted range {low:g} to {high:g}",
            hint="the law says nothing there; extrapolate=True computes the number anyway",
        )


def published_law() -> MoELaw:
    """Return the joint fit of the paper's sweep over E (arXiv 2605.27358)."""
    return MoELaw(
        a=0.2388,
        delta=0.0906,
        alpha=-0.2833,
        gamma=0.0387,
        b=0.6019,
        omega=1.0593,
        beta=-0.3210,
        zeta=-0.3684,
        c=1.9730,
        rmse=0.0076,
        active_grid=(0.3e9, 0.5e9, 0.9e9),
        token_grid=(100e9, 200e9, 300e9, 400e9, 500e9),
        expert_grid=(1, 2, 4, 8, 16, 32),
    )
