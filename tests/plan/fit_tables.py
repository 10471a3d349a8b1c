"""Made-up tables of runs with planted coefficients, for the tests of the fit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mobilemoe.plan import MoELaw, published_law
from mobilemoe.plan.fit import TrainingRun

SIZES = (0.3e9, 0.5e9, 0.9e9)
TOKENS = (100e9, 200e9, 300e9, 500e9)


def planted(
    law: MoELaw | None = None,
    *,
    noise: float = 0.0,
    seed: int = 0,
    experts: Sequence[int] = (1, 2, 4, 8, 16, 32),
    sizes: Sequence[float] = SIZES,
    tokens: Sequence[float] = TOKENS,
    seeds: int = 1,
    granularity: int | None = 8,
    shared_expert: bool | None = True,
) -> tuple[TrainingRun, ...]:
    """Return runs whose loss is the law's times exp(noise), on the grid of all arguments."""
    law = law or published_law()
    rng = np.random.default_rng(seed)
    return tuple(
        TrainingRun(
            active_params=size,
            tokens=count,
            expert_equivalents=e,
            loss=law.loss(active_params=size, tokens=count, num_experts=e, extrapolate=True)
            * float(np.exp(rng.normal(0, noise))),
            granularity=granularity,
            shared_expert=shared_expert,
            seed=number,
        )
        for size in sizes
        for count in tokens
        for e in experts
        for number in range(seeds)
    )
