"""Where dense, and where each E, has the lowest predicted loss: memory against training FLOPs.

For every budget and every E the best model is sought among all that fit the memory: N active
parameters, trained on D = FLOPs / (6 N) tokens (arXiv 2605.27358 counts 6 N D). A smaller model
that sees more tokens may win, so the memory is a limit and not a target.

E expert counts, C training budgets [FLOPs], M memory budgets [bytes], N sizes tried.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mobilemoe.errors import MobileMoEError
from mobilemoe.plan.law import MoELaw
from mobilemoe.plan.pictures.sizes import Floats, Sizes

TRAINING_FLOPS = 6  # per active parameter and token, forward and backward
SIZES_TRIED = 120  # between the smallest and the largest, besides those that fill a budget


@dataclass(frozen=True)
class Regions:
    """The best model of every E for every budget; NaN where nothing fits.

    `reach_ECM`: how far inside the law's fitted range that model is, as the logarithm of the
    factor to the nearest end of N or D; negative outside, as for an E that was not fitted.
    """

    experts: tuple[int, ...]
    memory_M: Floats
    flops_C: Floats
    loss_ECM: Floats
    active_ECM: Floats
    reach_ECM: Floats
    rmse: float

    @property
    def fits_CM(self) -> NDArray[np.bool_]:
        """Whether any model fits."""
        fits: NDArray[np.bool_] = np.logical_or.reduce(np.isfinite(self.loss_ECM), axis=0)
        return fits

    @property
    def winner_CM(self) -> NDArray[np.intp]:
        """Index into `experts` of the lowest loss (the first one where nothing fits)."""
        winner: NDArray[np.intp] = _known(self.loss_ECM).argmin(axis=0)
        return winner

    @property
    def margin_CM(self) -> Floats:
        """Loss of the runner-up minus that of the winner; infinite without a runner-up."""
        ordered = np.sort(_known(self.loss_ECM), axis=0)
        if len(ordered) < 2:
            return np.full(ordered.shape[1:], np.inf)
        with np.errstate(invalid="ignore"):
            return np.where(np.isfinite(ordered[0]), ordered[1] - ordered[0], np.inf)

    @property
    def dense_gain_CM(self) -> Floats:
        """Loss of the best MoE minus that of dense: above 0 dense wins; NaN without either."""
        dense = [index for index, each in enumerate(self.experts) if each == 1]
        sparse = [index for index, each in enumerate(self.experts) if each != 1]
        if not dense or not sparse:
            return np.full(self.loss_ECM.shape[1:], np.nan)
        best = _known(self.loss_ECM[sparse]).min(axis=0)
        with np.errstate(invalid="ignore"):
            gain = best - self.loss_ECM[dense[0]]
        return np.where(np.isfinite(gain), gain, np.nan)

    @property
    def winner_reach_CM(self) -> Floats:
        """The reach of the winner; negative where nothing fits."""
        reach = np.take_along_axis(self.reach_ECM, self.winner_CM[None], axis=0)[0]
        return np.where(self.fits_CM, reach, -1.0)

    @property
    def trusted_CM(self) -> NDArray[np.bool_]:
        """Whether the winner is inside the fitted range."""
        return self.winner_reach_CM >= 0

    @property
    def tied_CM(self) -> NDArray[np.bool_]:
        """Whether the runner-up is within the fit's error."""
        return self.fits_CM & (self.margin_CM < self.rmse)


def regions(
    law: MoELaw, sizes: Sequence[Sizes], memories: Sequence[float], flops: Sequence[float]
) -> Regions:
    """Return the best model of every E for every pair of budgets.

    Raises:
        MobileMoEError: if there is no expert count, or a budget is not positive.
    """
    if not sizes:
        raise MobileMoEError("regions: no expert counts; allowed: at least one")
    memory_M, flops_C = _budgets("memories", memories), _budgets("flops", flops)
    best = [_best(law, each, memory_M, flops_C) for each in sizes]
    loss_ECM, active_ECM = (np.stack(parts) for parts in zip(*best, strict=True))
    experts = tuple(each.expert_equivalents for each in sizes)
    reach = np.stack([_reach(law, e, active_ECM[i], flops_C) for i, e in enumerate(experts)])
    return Regions(experts, memory_M, flops_C, loss_ECM, active_ECM, reach, law.rmse)


def _budgets(name: str, values: Sequence[float]) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if not array.size or not np.isfinite(array).all() or (array <= 0).any():
        raise MobileMoEError(f"regions: {name} is {values!r}; allowed: positive numbers")
    return array


def _best(law: MoELaw, sizes: Sizes, memory_M: Floats, flops_C: Floats) -> tuple[Floats, Floats]:
    """Return loss and active parameters [C, M] of the best model of one E."""
    active_N = _sizes_tried(sizes, memory_M)
    curve = law.dense_law(sizes.expert_equivalents)
    loss_CN = np.array(
        [
            [
                curve.loss(
                    active_params=active,
                    tokens=budget / (TRAINING_FLOPS * active),
                    extrapolate=True,
                )
                for active in active_N.tolist()
            ]
            for budget in flops_C.tolist()
        ]
    )
    last_M = np.searchsorted(sizes.memory_of(active_N), memory_M * (1 + 1e-9), side="right") - 1
    pick_CN = _running_argmin(loss_CN)
    pick_CM = pick_CN[:, np.maximum(last_M, 0)]
    fits_M = last_M >= 0
    loss_CM = np.take_along_axis(loss_CN, pick_CM, axis=1)
    return np.where(fits_M, loss_CM, np.nan), np.where(fits_M, active_N[pick_CM], np.nan)


def _sizes_tried(sizes: Sizes, memory_M: Floats) -> Floats:
    """Return the sizes that fill each memory, and a grid below the largest of them, in order."""
    filling = [sizes.active_within(memory) for memory in memory_M.tolist()]
    low = float(sizes.active_W[0])
    grid = np.geomspace(low, max([*filling, low]), SIZES_TRIED)
    return np.unique([*grid, *(active for active in filling if active > 0)])


def _running_argmin(loss_CN: Floats) -> NDArray[np.intp]:
    """Return for each size the index of the best one up to it."""
    low = np.minimum.accumulate(loss_CN, axis=1)
    is_new = np.concatenate([np.ones_like(low[:, :1], bool), low[:, 1:] < low[:, :-1]], axis=1)
    return np.maximum.accumulate(np.where(is_new, np.arange(low.shape[1]), 0), axis=1)


def _reach(law: MoELaw, experts: int, active_CM: Floats, flops_C: Floats) -> Floats:
    tokens_CM = flops_C[:, None] / (TRAINING_FLOPS * active_CM)
    reach = np.minimum(_room(active_CM, law.active_grid), _room(tokens_CM, law.token_grid))
    if not law.expert_grid[0] <= experts <= law.expert_grid[-1]:
        reach = np.minimum(reach, -1.0)
    return np.where(np.isfinite(reach), reach, -1.0)


def _room(values: Floats, grid: Sequence[float]) -> Floats:
    """Return the logarithm of the factor to the nearest end of `grid`, negative outside."""
    room = np.minimum(np.log(values / grid[0]), np.log(grid[-1] / values))
    return np.where(np.abs(room) < 1e-9, 0.0, room)


def _known(loss: Floats) -> Floats:
    return np.where(np.isfinite(loss), loss, np.inf)
