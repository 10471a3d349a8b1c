"""Many fits at once: Levenberg and Marquardt's steps, each followed by a projection.

A batch of parameter vectors goes through numpy together, because a bootstrap is hundreds of
small fits. Each vector has its own weights of the runs, its own damping and its own end.
"""

from __future__ import annotations

import numpy as np

from mobilemoe.plan.fit.coefficients import Array
from mobilemoe.plan.fit.problem import Problem
from mobilemoe.plan.fit.project import project

MAX_STEPS = 300
FIRST_DAMPING, LEAST_DAMPING, MOST_DAMPING = 1e-2, 1e-9, 1e9
ROUGH, FINE = 1e-5, 1e-11  # relative gain of a step that is not worth another
LEADERS = 4  # starts that are finished finely
PATIENCE = 4  # such steps in a row
FARTHEST = 3.0  # of one step in any parameter: exponents and logarithms are of order one
CHUNK = 400_000  # numbers of one Jacobian; larger ones fall out of the cache


def solve(
    problem: Problem, q_SP: Array, weights_SR: Array, enough: float = ROUGH
) -> tuple[Array, Array]:
    """Return the parameters q_SP that each start ends at, and their objectives [S].

    A start ends when several steps in a row gain less than `enough` of its objective.
    """
    runs, parameters = weights_SR.shape[1], q_SP.shape[1]
    size = max(1, CHUNK // (runs * max(parameters, 9)))
    done = [
        _solve_chunk(problem, q_SP[low : low + size], weights_SR[low : low + size], enough)
        for low in range(0, len(q_SP), size)
    ]
    return np.concatenate([q for q, _ in done]), np.concatenate([value for _, value in done])


def solve_best(problem: Problem, q_SP: Array) -> tuple[Array, Array]:
    """Return the best parameters [P] from all starts, and the objective of each start.

    All starts are brought near their minimum, and the best few of them into it.
    """
    ones_SR = np.ones((len(q_SP), len(problem.loss_R)))
    q_SP, value_S = solve(problem, q_SP, ones_SR)
    leaders = value_S.argsort()[:LEADERS]
    fine_SP, fine_S = solve(problem, q_SP[leaders], ones_SR[leaders], FINE)
    value_S[leaders] = fine_S
    return fine_SP[fine_S.argmin()], value_S


def _solve_chunk(
    problem: Problem, q_SP: Array, weights_SR: Array, enough: float
) -> tuple[Array, Array]:
    q_SP = project(problem, q_SP, weights_SR)
    value_S = problem.objective(q_SP, weights_SR)
    damping_S = np.full(len(q_SP), FIRST_DAMPING)
    idle_S = np.zeros(len(q_SP), dtype=int)
    for _ in range(MAX_STEPS):
        live = np.flatnonzero((idle_S < PATIENCE) & (damping_S < MOST_DAMPING))
        if not live.size:
            break
        weights, before = weights_SR[live], value_S[live]
        tried = _step(problem, q_SP[live], weights, damping_S[live])
        tried, value = _better_of(problem, tried, project(problem, tried, weights, 1), weights)
        accepted = value < before
        damping_S[live] = np.where(
            accepted, np.maximum(damping_S[live] / 5, LEAST_DAMPING), damping_S[live] * 4
        )
        idle = accepted & (before - value <= enough * before)
        idle_S[live] = np.where(idle, idle_S[live] + 1, np.where(accepted, 0, idle_S[live]))
        q_SP[live[accepted]], value_S[live[accepted]] = tried[accepted], value[accepted]
    return q_SP, value_S


def _step(problem: Problem, q_SP: Array, weights_SR: Array, damping_S: Array) -> Array:
    """Return the parameters after one damped Gauss-Newton step on the reweighted squares."""
    pred_SR, J_SRP = problem.jacobian(q_SP)
    r_SR = problem.residuals(pred_SR)
    weighted_SRP = J_SRP * (weights_SR * problem.robust_weights(r_SR))[..., None]
    H_SPP = weighted_SRP.transpose(0, 2, 1) @ J_SRP
    g_SP = np.einsum("srp,sr->sp", weighted_SRP, r_SR)
    if problem.pull is not None:
        places = problem.pulled_parameters()
        H_SPP[:, places, places] += problem.pull.strength
        g_SP[:, places] += problem.pull.strength * problem.away_from_pull(q_SP)
    scale_SP = np.sqrt(np.einsum("spp->sp", H_SPP)) + np.finfo(float).tiny ** 0.5
    scaled_SPP = H_SPP / (scale_SP[:, :, None] * scale_SP[:, None, :])
    parameters = np.arange(q_SP.shape[1])
    scaled_SPP[:, parameters, parameters] += damping_S[:, None]
    step_SP = np.linalg.solve(scaled_SPP, (g_SP / scale_SP)[..., None])[..., 0] / scale_SP
    farthest_S1 = np.abs(step_SP).max(axis=1, keepdims=True)
    shorter: Array = q_SP - step_SP * np.minimum(1.0, FARTHEST / np.maximum(farthest_S1, 1e-300))
    return shorter


def _better_of(
    problem: Problem, one_SP: Array, other_SP: Array, weights_SR: Array
) -> tuple[Array, Array]:
    """Return, row by row, the parameters with the lower objective, and that objective."""
    one_S = problem.objective(one_SP, weights_SR)
    other_S = problem.objective(other_SP, weights_SR)
    is_other = other_S < one_S
    return np.where(is_other[:, None], other_SP, one_SP), np.where(is_other, other_S, one_S)
