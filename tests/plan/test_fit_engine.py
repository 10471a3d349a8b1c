"""The parts of the fit against naive twins, and what it refuses and warns of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fit_tables import planted

from mobilemoe import MobileMoEError
from mobilemoe.plan import published_law
from mobilemoe.plan.fit import FitOptions, TrainingRun, fit_law, fit_per
from mobilemoe.plan.fit.coefficients import INDEX, LINEAR, NAMES, Array
from mobilemoe.plan.fit.problem import Problem
from mobilemoe.plan.fit.project import project
from mobilemoe.plan.fit.resample import draw_weights
from mobilemoe.plan.fit.setup import draw_starts, make_problem
from mobilemoe.plan.fit.solve import solve, solve_best

LAW = published_law()
OPTIONS = FitOptions(starts=16, bootstrap=0, leave_out=False)
RUNS = planted(noise=0.002, seed=4)


def problem_of(
    runs: tuple[TrainingRun, ...] = RUNS, options: FitOptions = OPTIONS, **fixed: float
) -> Problem:
    """Return the joint problem of one group of runs."""
    return make_problem(runs, [0] * len(runs), "joint", fixed, (), options)


def two_groups() -> Problem:
    """Return a joint problem with c and alpha in common and everything else twice."""
    runs = RUNS + planted(replace(LAW, a=0.3), noise=0.002, seed=5)
    groups = [0] * len(RUNS) + [1] * len(RUNS)
    return make_problem(runs, groups, "joint", {"delta": 0.1}, ("c", "alpha"), OPTIONS)


def starts_of(problem: Problem, count: int = 3) -> Array:
    """Return some parameters near which the objective is smooth."""
    return draw_starts(problem, count, np.random.default_rng(2))


@pytest.mark.parametrize("problem", [problem_of(), two_groups()], ids=["one", "two groups"])
def test_derivatives_are_the_differences(problem: Problem) -> None:
    q_SP = starts_of(problem)
    _, J_SRP = problem.jacobian(q_SP)
    for p in range(q_SP.shape[1]):
        step = np.zeros(q_SP.shape[1])
        step[p] = 1e-6
        logs = [np.log(problem.predict(q_SP + sign * step)) for sign in (1, -1)]
        assert np.abs((logs[0] - logs[1]) / 2e-6 - J_SRP[:, :, p]).max() < 1e-6


def test_parameters_and_coefficients_are_inverse() -> None:
    for problem in (problem_of(), two_groups()):
        q_SP = starts_of(problem)
        K_SGC = problem.layout.coefficients(q_SP)
        assert np.allclose(problem.layout.parameters(K_SGC), q_SP, atol=1e-9)


def test_predictions_are_the_law_s() -> None:
    problem = problem_of()
    K_C = [np.log(getattr(LAW, n)) if n in LINEAR else getattr(LAW, n) for n in NAMES]
    q_SP = problem.layout.parameters(np.array([[K_C]]))
    exact = [run.loss for run in planted()]
    assert np.allclose(problem.predict(q_SP)[0], exact, rtol=1e-12)


def test_the_objective_is_the_huber_loss_of_the_logarithm() -> None:
    problem = problem_of()
    q_SP = starts_of(problem, 1)
    weights_SR = np.arange(len(RUNS), dtype=float)[None]
    total = 0.0
    for weight, predicted, run in zip(weights_SR[0], problem.predict(q_SP)[0], RUNS, strict=True):
        r, d = abs(np.log(predicted) - np.log(run.loss)), OPTIONS.huber
        total += weight * (r * r / 2 if r <= d else d * (r - d / 2))
    assert problem.objective(q_SP, weights_SR)[0] == pytest.approx(total)


def test_projection_solves_for_the_linear_coefficients() -> None:
    """With right exponents and wrong a, b, c one projection finds them; squares, no noise."""
    problem = problem_of(planted(), replace(OPTIONS, huber=10.0))
    K_C = np.array([np.log(getattr(LAW, n)) if n in LINEAR else getattr(LAW, n) for n in NAMES])
    for name, factor in (("a", 2.0), ("b", 0.4), ("c", 0.7)):
        K_C[INDEX[name]] += np.log(factor)
    q_SP = project(problem, problem.layout.parameters(K_C[None, None]), np.ones((1, len(RUNS))))
    found = problem.layout.plain(problem.layout.coefficients(q_SP))[0, 0]
    assert np.allclose(found, [getattr(LAW, name) for name in NAMES], rtol=1e-6)


def test_a_library_s_solver_finds_no_lower_minimum() -> None:
    optimize = pytest.importorskip("scipy.optimize")
    problem = problem_of()
    best_P, value_S = solve_best(problem, starts_of(problem, 16))

    def residuals(q_P: Array) -> Array:
        found: Array = problem.residuals(problem.predict(q_P[None]))[0]
        return found

    settings = {"loss": "huber", "f_scale": OPTIONS.huber, "x_scale": "jac", "max_nfev": 500}
    for start in (best_P, best_P + 0.1):
        theirs = optimize.least_squares(residuals, start, ftol=1e-12, xtol=1e-12, **settings)
        assert value_S.min() <= theirs.cost * (1 + 1e-6)


def test_each_of_a_batch_is_solved_as_if_alone() -> None:
    problem = problem_of()
    q_SP = starts_of(problem, 4)
    weights_SR = np.random.default_rng(0).multinomial(72, [1 / 72] * 72, 4).astype(float)
    _, together_S = solve(problem, q_SP, weights_SR)
    for index in range(4):
        _, alone_S = solve(problem, q_SP[index : index + 1], weights_SR[index : index + 1])
        assert alone_S[0] == pytest.approx(together_S[index], rel=1e-6)


def test_weights_are_repetitions() -> None:
    """A run of weight 2 counts as the run twice."""
    problem = problem_of()
    twice = problem_of((*RUNS, RUNS[0], RUNS[0]))
    q_SP = starts_of(problem)
    weights_SR = np.ones((3, len(RUNS)))
    weights_SR[:, 0] = 3
    ones_SR = np.ones((3, len(RUNS) + 2))
    assert np.allclose(problem.objective(q_SP, weights_SR), twice.objective(q_SP, ones_SR))


def test_resamples_keep_seeds_together_and_groups_apart() -> None:
    runs = planted(seeds=3, experts=(1, 8, 32)) + planted(seeds=2, experts=(1, 8), granularity=1)
    first = len(planted(seeds=3, experts=(1, 8, 32)))
    groups = [0] * first + [1] * (len(runs) - first)
    problem = make_problem(runs, groups, "joint", {}, (), OPTIONS)
    weights_SR, _ = draw_weights(problem, runs, 20, np.random.default_rng(0))
    assert (weights_SR[:, :first].reshape(20, -1, 3) == weights_SR[:, :first:3, None]).all()
    assert (weights_SR[:, first:].reshape(20, -1, 2) == weights_SR[:, first::2, None]).all()
    assert (weights_SR[:, :first].sum(axis=1) == first).all()
    assert (weights_SR[:, first:].sum(axis=1) == len(runs) - first).all()
    assert weights_SR.std(axis=0).min() > 0


def test_the_same_seed_gives_the_same_fit() -> None:
    options = FitOptions(starts=4, bootstrap=10, leave_out=False, seed=7)
    one, same = (fit_law(RUNS, options=options) for _ in range(2))
    other = fit_law(RUNS, options=replace(options, seed=8))
    assert one == same
    assert one.intervals != other.intervals


def test_held_out_errors_are_those_of_a_fit_without_the_scale() -> None:
    options = replace(OPTIONS, leave_out=True)
    fit = fit_law(RUNS, options=options)
    error = next(e for e in fit.held_out if e.axis == "tokens" and e.value == 200e9)
    rest = fit_law([run for run in RUNS if run.tokens != 200e9], options=OPTIONS)
    misses = [
        rest.law.loss(
            active_params=run.active_params,
            tokens=run.tokens,
            num_experts=run.expert_equivalents,
        )
        - run.loss
        for run in RUNS
        if run.tokens == 200e9
    ]
    assert error.runs == len(misses) == 18
    assert error.rmse == pytest.approx(float(np.sqrt(np.mean(np.square(misses)))), rel=1e-2)
    assert error.bias == pytest.approx(float(np.mean(misses)), rel=1e-2, abs=1e-5)
    edges = {(e.axis, e.value) for e in fit.held_out if e.at_edge}
    assert edges == {
        ("active_params", 0.3e9),
        ("active_params", 0.9e9),
        ("tokens", 100e9),
        ("tokens", 500e9),
        ("expert_equivalents", 1),
        ("expert_equivalents", 32),
    }


def test_residuals_and_seed_noise() -> None:
    runs = planted(noise=0.003, seeds=4, experts=(1, 4, 8), seed=2)
    fit = fit_law(runs, options=OPTIONS)
    for residual, run in list(zip(fit.residuals, runs, strict=True))[::9]:
        predicted = fit.law.loss(
            active_params=run.active_params,
            tokens=run.tokens,
            num_experts=run.expert_equivalents,
        )
        assert residual == pytest.approx(predicted - run.loss, abs=1e-9)
    assert fit.seed_noise == pytest.approx(0.003 * 2.35, rel=0.2)
    assert fit_law(RUNS, options=OPTIONS).seed_noise is None


REFUSED = [
    (planted(experts=(8,)), {}, "do not determine .*values of E", "form dense"),
    (planted(sizes=(0.3e9, 0.9e9)), {}, "do not determine a, .*2 sizes", "fix coefficients"),
    (planted(sizes=(0.30e9, 0.31e9, 0.9e9)), {}, "do not determine .*2 sizes", ""),
    (planted(tokens=(1e11,)), {}, "1 token budgets", ""),
    (planted(experts=(1, 8)), {"form": "dense"}, "E of 1, 8; it has no term", "one E"),
    (RUNS + planted(granularity=4), {}, "mix granularity 4, 8", "--by granularity"),
    (RUNS + planted(shared_expert=False), {}, "mix shared_expert False, True", ""),
    ((), {}, "no runs", ""),
    (RUNS, {"fixed": {"kappa": 1.0}}, "kappa: no coefficient of the joint form", ""),
    (planted(experts=(8,)), {"form": "dense", "fixed": {"gamma": 0.0}}, "gamma: no coeff", ""),
    (RUNS, {"fixed": {"a": -1.0}}, "fixed a is -1.0; allowed: a positive", ""),
    (RUNS, {"fixed": {"beta": float("nan")}}, "fixed beta is nan", ""),
    (RUNS, {"fixed": dict.fromkeys(NAMES, 1.0)}, "every coefficient is fixed", ""),
    (RUNS, {"fixed": {"c": 1.9}, "options": FitOptions(c_towards=1.9)}, "both fixed and pull", ""),
]


@pytest.mark.parametrize(("runs", "arguments", "message", "hint"), REFUSED)
def test_what_cannot_be_fitted_is_refused(
    runs: tuple[TrainingRun, ...], arguments: dict[str, object], message: str, hint: str
) -> None:
    with pytest.raises(MobileMoEError, match=message) as caught:
        fit_law(runs, **arguments)  # type: ignore[call-overload]
    assert hint in caught.value.hint


def test_fewer_scales_do_when_something_is_known() -> None:
    two_sizes = planted(sizes=(0.3e9, 0.9e9))
    fit = fit_law(two_sizes, fixed={"c": LAW.c}, options=OPTIONS)
    assert fit.law.alpha == pytest.approx(LAW.alpha, rel=1e-2)
    pulled = fit_law(two_sizes, options=replace(OPTIONS, c_towards=LAW.c))
    assert pulled.law.alpha == pytest.approx(LAW.alpha, rel=2e-2)
    dense = fit_law(planted(experts=(8,)), form="dense", options=OPTIONS)
    assert dense.law.num_experts == 8
    assert dense.law.alpha == pytest.approx(LAW.dense_law(8).alpha, rel=2e-2)


@pytest.mark.parametrize(
    ("by", "arguments", "message"),
    [
        ("depth", {}, "by is 'depth'"),
        ("granularity", {}, "all runs have granularity 8"),
        ("shared_expert", {"shared": ("a", "alpha", "b", "beta", "c")}, "leave one to differ"),
        ("shared_expert", {"shared": ("gamma",)}, "gamma: no coefficient of the dense form"),
    ],
)
def test_what_cannot_be_fitted_apart_is_refused(
    by: str, arguments: dict[str, object], message: str
) -> None:
    runs = planted(experts=(8,)) + planted(experts=(8,), shared_expert=False)
    with pytest.raises(MobileMoEError) as caught:
        fit_per(runs, by, **arguments)  # type: ignore[arg-type]
    assert message in str(caught.value)
    unknown = planted(experts=(8,), granularity=None)
    with pytest.raises(MobileMoEError, match="does not tell its granularity"):
        fit_per(unknown, "granularity")


@pytest.mark.parametrize(
    "setting",
    [
        {"huber": 0.0},
        {"starts": 0},
        {"bootstrap": 5},
        {"confidence": 1.0},
        {"seed": -1},
        {"c_towards": 0.0},
        {"c_strength": float("inf")},
        {"unit_tokens": -1.0},
    ],
)
def test_senseless_settings_are_refused(setting: dict[str, float]) -> None:
    (name,) = setting
    with pytest.raises(MobileMoEError, match=f"fit: {name} is"):
        FitOptions(**setting)  # type: ignore[arg-type]


def test_warnings_say_what_not_to_rely_on() -> None:
    hurt = replace(LAW, beta=0.05, zeta=0.0, b=0.01, omega=0.0)
    wrong_way = fit_law(planted(hurt, experts=(1, 8)), options=OPTIONS)
    assert any("more tokens raise the loss" in text for text in wrong_way.warnings)
    few = fit_law(planted(experts=(1, 8), tokens=(1e11, 2e11, 5e11)), options=OPTIONS)
    assert any("18 configurations for 9" in text for text in few.warnings) is False
    tiny = planted(experts=(1, 8), tokens=(1e11, 2e11, 5e11))[:14]
    assert any("14 configurations for 9" in t for t in fit_law(tiny, options=OPTIONS).warnings)
    no_floor = planted(replace(LAW, c=1e-6))
    assert any("c went to 0" in text for text in fit_law(no_floor, options=OPTIONS).warnings)


def test_a_form_that_does_not_fit_is_noticed() -> None:
    """Losses of the square root of the law, with hardly any noise between seeds."""
    runs = tuple(
        replace(run, loss=run.loss * (1 + 0.02 * np.sin(run.tokens / 3e10)))
        for run in planted(noise=1e-4, seeds=2, experts=(1, 8))
    )
    fit = fit_law(runs, options=OPTIONS)
    assert any("times the noise between seeds" in text for text in fit.warnings)


def test_intervals_need_draws_and_the_right_arguments() -> None:
    fit = fit_law(RUNS, options=OPTIONS)
    point = {"active_params": 0.5e9, "tokens": 2e11}
    with pytest.raises(MobileMoEError, match="no bootstrap draws"):
        fit.loss_interval(**point, num_experts=8)
    with pytest.raises(MobileMoEError, match="needs num_experts"):
        fit.loss_interval(**point)
    dense = fit_law(planted(experts=(8,)), form="dense", options=OPTIONS)
    with pytest.raises(MobileMoEError, match="has no num_experts"):
        dense.loss_interval(**point, num_experts=8)
