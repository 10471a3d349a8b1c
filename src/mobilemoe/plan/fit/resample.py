"""Bootstrap draws: the runs, resampled by configuration, as weights (Efron, 1979).

Seeds of one configuration stay together, because what a draw should vary is what else might
have been swept and how it came out, and two seeds of one configuration do not count as two.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mobilemoe.errors import MobileMoEError
from mobilemoe.plan.fit.coefficients import Array
from mobilemoe.plan.fit.problem import Problem
from mobilemoe.plan.fit.runs import TrainingRun
from mobilemoe.plan.fit.setup import subset, undetermined

MOST_TRIES = 20  # per draw that is kept


def configurations(runs: Sequence[TrainingRun]) -> list[int]:
    """Return for each run the number of its configuration."""
    known: dict[object, int] = {}
    return [known.setdefault(run.configuration, len(known)) for run in runs]


def draw_weights(
    problem: Problem, runs: Sequence[TrainingRun], draws: int, rng: np.random.Generator
) -> tuple[Array, int]:
    """Return weights_SR of `draws` resamples, and how many were drawn again.

    Each group of runs keeps its number of configurations. A resample that does not determine
    every coefficient is drawn again.

    Raises:
        MobileMoEError: if hardly any resample determines the coefficients.
    """
    clusters_R = np.array(configurations(runs))
    kept: list[Array] = []
    tries = 0
    while len(kept) < draws:
        tries += 1
        if tries > MOST_TRIES * draws:
            raise MobileMoEError(
                "hardly any resample of the runs determines the coefficients",
                hint="add runs, fix coefficients, or give up the intervals (bootstrap 0)",
            )
        weights_R = _resample(clusters_R, problem.group_R, rng)
        if not undetermined(subset(problem, weights_R > 0)):
            kept.append(weights_R)
    return np.stack(kept), tries - draws


def _resample(
    clusters_R: np.ndarray[tuple[int], np.dtype[np.intp]],
    group_R: np.ndarray[tuple[int], np.dtype[np.intp]],
    rng: np.random.Generator,
) -> Array:
    weights_R = np.zeros(len(clusters_R))
    for group in np.unique(group_R):
        members = np.unique(clusters_R[group_R == group])
        drawn = rng.multinomial(len(members), np.full(len(members), 1 / len(members)))
        for cluster, times in zip(members, drawn, strict=True):
            weights_R[(clusters_R == cluster) & (group_R == group)] = times
    return weights_R
