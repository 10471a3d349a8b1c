"""The fit finds planted coefficients, and its intervals hold what they say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fit_tables import planted

from mobilemoe.plan import published_law
from mobilemoe.plan.fit import FitOptions, LawFit, fit_law, fit_per
from mobilemoe.plan.law import Architecture, MoELaw

LAW = published_law()
QUICK = FitOptions(starts=24, bootstrap=0, leave_out=False)
NAMES = ("a", "delta", "alpha", "gamma", "b", "omega", "beta", "zeta", "c")
OTHER = replace(
    LAW, a=0.5, delta=-0.05, alpha=-0.2, gamma=0.02, b=0.9, omega=0.7, beta=-0.45, zeta=-0.2, c=1.5
)
# The scale that this project can train at: millions of parameters and of tokens.
NANO_SIZES, NANO_TOKENS = (0.4e6, 1.2e6, 3.5e6), (2e6, 8e6, 20e6, 60e6)
NANO = replace(LAW, a=0.02, delta=0.02, alpha=-0.4, gamma=0.01, b=0.05, omega=0.1, beta=-0.4)


@pytest.mark.parametrize("law", [LAW, OTHER], ids=["published", "other"])
def test_exact_runs_give_the_exact_coefficients(law: MoELaw) -> None:
    fit = fit_law(planted(law), options=QUICK)
    for coefficient in fit.coefficients:
        assert coefficient.value == pytest.approx(getattr(law, coefficient.name), rel=2e-3)
    assert fit.law.rmse < 1e-5
    assert fit.law.expert_grid == LAW.expert_grid


def test_exact_runs_at_another_scale_and_in_other_units() -> None:
    """Conditioning: with N of a millionth of its unit the coefficients are still found."""
    nano = replace(NANO, zeta=-0.02)
    runs = planted(nano, sizes=NANO_SIZES, tokens=NANO_TOKENS)
    fit = fit_law(runs, options=QUICK)
    for name in NAMES:
        assert getattr(fit.law, name) == pytest.approx(getattr(nano, name), rel=0.02, abs=1e-3)
    millions = fit_law(runs, options=replace(QUICK, unit_active=1e6, unit_tokens=1e6))
    assert millions.law.alpha == pytest.approx(fit.law.alpha, rel=1e-2)
    assert (millions.law.unit_active, millions.law.unit_tokens) == (1e6, 1e6)
    for run in runs[::7]:
        point = {"active_params": run.active_params, "tokens": run.tokens}
        loss = millions.law.loss(**point, num_experts=run.expert_equivalents)
        assert loss == pytest.approx(run.loss, abs=1e-4)


def test_the_sweep_s_ends_are_the_fitted_range() -> None:
    fit = fit_law(planted(sizes=(0.3e9, 0.31e9, 0.6e9, 0.9e9)), options=QUICK)
    assert fit.law.active_grid[0] == 0.3e9 and fit.law.active_grid[-1] == 0.9e9
    assert len(fit.law.active_grid) == 3  # 0.30 and 0.31 are one scale
    assert fit.law.predict(active_params=0.29e9, tokens=2e11, num_experts=8).extrapolated


@pytest.fixture(scope="module")
def noisy_fits() -> tuple[LawFit[MoELaw], ...]:
    """Return the fits of eight planted sets, half of each law."""
    options = FitOptions(starts=8, bootstrap=40, leave_out=False)
    return tuple(
        fit_law(planted(law, noise=0.002, seed=seed, tokens=(100e9, 200e9, 500e9)), options=options)
        for seed in range(4)
        for law in (LAW, OTHER)
    )


def test_intervals_hold_the_planted_coefficients(noisy_fits: tuple[LawFit[MoELaw], ...]) -> None:
    """Of 90 % intervals of 72 coefficients; those of one fit err together, so not exactly 65."""
    laws = (LAW, OTHER) * 4
    hits = [
        fit.intervals[name].low <= getattr(law, name) <= fit.intervals[name].high
        for law, fit in zip(laws, noisy_fits, strict=True)
        for name in NAMES
    ]
    assert float(np.mean(hits)) >= 0.8


def test_intervals_hold_the_planted_losses(noisy_fits: tuple[LawFit[MoELaw], ...]) -> None:
    points = [(0.3e9, 1e11, 1), (0.5e9, 2e11, 8), (0.9e9, 5e11, 32), (0.3e9, 5e11, 4)]
    hits, widths = [], []
    for law, fit in zip((LAW, OTHER) * 4, noisy_fits, strict=True):
        for size, tokens, experts in points:
            point = {"active_params": size, "tokens": tokens, "num_experts": experts}
            _, interval = fit.loss_interval(**point)
            hits.append(interval.low <= law.loss(**point) <= interval.high)
            widths.append(interval.high - interval.low)
    assert float(np.mean(hits)) >= 0.75
    assert max(widths) < 0.03  # an interval that holds everything says nothing


def test_fixed_coefficients_stay_and_the_rest_is_found() -> None:
    runs = planted(noise=0.001, seed=3)
    free = fit_law(runs, options=QUICK)
    fit = fit_law(runs, fixed={"c": LAW.c, "delta": LAW.delta, "b": LAW.b}, options=QUICK)
    assert (fit.law.c, fit.law.delta, fit.law.b) == (
        pytest.approx(LAW.c),
        LAW.delta,
        pytest.approx(LAW.b),
    )
    assert fit.law.alpha == pytest.approx(LAW.alpha, rel=0.1)
    assert fit.objective >= free.objective
    fixed = {c.name for c in fit.coefficients if c.fixed}
    assert fixed == {"b", "c", "delta"}


def test_a_floor_of_zero_can_be_fixed() -> None:
    law = replace(LAW, c=0.0)
    fit = fit_law(planted(law), fixed={"c": 0.0}, options=QUICK)
    assert fit.law.c < 1e-20
    assert fit.law.a == pytest.approx(LAW.a, rel=1e-2)


def test_c_is_pulled_as_strongly_as_asked() -> None:
    runs = planted(noise=0.002, seed=5)
    values = [
        fit_law(runs, options=replace(QUICK, c_towards=1.0, c_strength=strength)).law.c
        for strength in (1e-8, 1e-4, 1e-2, 1e3)
    ]
    assert values == sorted(values, reverse=True)
    assert values[-1] == pytest.approx(1.0, abs=0.01)
    assert values[0] == pytest.approx(fit_law(runs, options=QUICK).law.c, rel=0.02)


def test_outliers_hardly_move_a_robust_fit() -> None:
    runs = list(planted(noise=0.0005, seed=1))
    for index in (5, 40):
        runs[index] = replace(runs[index], loss=runs[index].loss * 1.05)
    point = {"active_params": 0.5e9, "tokens": 3e11, "num_experts": 8}
    robust = fit_law(runs, options=QUICK).law.loss(**point)
    squares = fit_law(runs, options=replace(QUICK, huber=10.0)).law.loss(**point)
    truth = LAW.loss(**point)
    assert abs(robust - truth) < 0.001 < abs(squares - truth)


def test_shared_expert_fits_share_all_but_the_capacity() -> None:
    """The published pair of A: what is shared is found once, and the ratio with its interval."""
    with_shared, without = replace(LAW, a=0.1224), replace(LAW, a=0.1670)
    tokens = (50e9, 100e9, 200e9, 500e9)
    grid = {"experts": (8,), "noise": 0.0005, "tokens": tokens, "granularity": 8}
    runs = (
        *planted(with_shared, seed=1, shared_expert=True, **grid),
        *planted(without, seed=2, shared_expert=False, **grid),
    )
    options = FitOptions(starts=24, bootstrap=40, leave_out=False, c_towards=1.973)
    per = fit_per(runs, "shared_expert", shared=("alpha", "b", "beta", "c"), options=options)
    assert per.values == (0, 1)
    one, other = (fit.law for fit in per.fits)
    assert (one.alpha, one.b, one.beta, one.c) == (other.alpha, other.b, other.beta, other.c)
    ratio, interval = per.ratio("a", 1, to=0)
    assert interval is not None
    assert interval.low < 0.1224 / 0.1670 < interval.high
    assert interval.high - interval.low < 0.2
    assert ratio == pytest.approx(0.1224 / 0.1670, abs=0.1)
    assert per.table is not None
    assert per.table.at(Architecture(8, False)) == one


def test_fits_per_granularity_are_fits_of_their_own() -> None:
    laws = {1: replace(LAW, a=0.3), 4: replace(LAW, a=0.25, beta=-0.25)}
    runs = tuple(
        run
        for g, law in laws.items()
        for run in planted(law, experts=(8,), granularity=g, noise=0.0005, seed=g)
    )
    options = replace(QUICK, c_towards=1.973)
    per = fit_per(runs, "granularity", options=options)
    for g, fit in zip(per.values, per.fits, strict=True):
        own = [run for run in runs if run.granularity == g]
        alone = fit_law(own, form="dense", options=options)
        point = {"active_params": 0.5e9, "tokens": 2e11}
        assert fit.law.loss(**point) == pytest.approx(alone.law.loss(**point), abs=1e-4)
        assert fit.law.num_experts == 8
