"""Variable projection: the best a, b and c for given exponents, by linear least squares.

The loss is linear in a, b and c (Golub and Pereyra, SIAM J. Numer. Anal. 10, 1973), so they need
no search. Here they are found as factors s on their present values: pred = sum_L s_L T_L + rest,
where T_L is what a free linear parameter contributes now. Squares of the relative residual stand
for the Huber loss of the logarithm through weights; both agree to first order.
"""

from __future__ import annotations

import numpy as np

from mobilemoe.plan.fit.coefficients import Array
from mobilemoe.plan.fit.problem import Problem

RIDGE = 1e-13  # relative; keeps a term that vanished from making the equations singular
ROUNDS = 3  # of reweighting


def project(problem: Problem, q_SP: Array, weights_SR: Array, rounds: int = ROUNDS) -> Array:
    """Return q_SP with a, b and c solved for; unchanged where the solution is not positive."""
    for _ in range(rounds if problem.free_linear else 0):
        q_SP = _project_once(problem, q_SP, weights_SR)
    return q_SP


def _project_once(problem: Problem, q_SP: Array, weights_SR: Array) -> Array:
    linear = problem.free_linear
    pred_SR, J_SRP = problem.jacobian(q_SP)
    parts_SRL = J_SRP[:, :, linear] * (pred_SR / problem.loss_R)[..., None]
    rest_SR = pred_SR / problem.loss_R - parts_SRL.sum(axis=2)
    w_SR = weights_SR * problem.robust_weights(problem.residuals(pred_SR))
    weighted_SRL = parts_SRL * w_SR[..., None]
    H_SLL = weighted_SRL.transpose(0, 2, 1) @ parts_SRL
    g_SL = np.einsum("srl,sr->sl", weighted_SRL, 1 - rest_SR)
    if problem.pull is not None:
        _add_pull(problem, q_SP, H_SLL, g_SL)
    size_SL = np.einsum("sll->sl", H_SLL)
    size_SL += RIDGE * size_SL.max(axis=1, keepdims=True) + np.finfo(float).tiny
    factors_SL = _solve(H_SLL, g_SL)
    sound_S1 = (np.isfinite(factors_SL) & (factors_SL > 0)).all(axis=1, keepdims=True)
    moved_SP = q_SP.copy()
    moved_SP[:, linear] += np.log(np.where(sound_S1, factors_SL, 1.0))
    return moved_SP


def _add_pull(problem: Problem, q_SP: Array, H_SLL: Array, g_SL: Array) -> None:
    """Add the pull on c to the normal equations: ln s is s - 1 near the solution."""
    assert problem.pull is not None
    places = [problem.free_linear.index(p) for p in problem.pulled_parameters()]
    H_SLL[:, places, places] += problem.pull.strength
    g_SL[:, places] += problem.pull.strength * (1 - problem.away_from_pull(q_SP))


def _solve(H_SLL: Array, g_SL: Array) -> Array:
    """Solve a batch of small symmetric systems scaled to a unit diagonal; NaN where singular."""
    scale_SL = np.sqrt(np.einsum("sll->sl", H_SLL))
    scaled_SLL = H_SLL / (scale_SL[:, :, None] * scale_SL[:, None, :])
    try:
        solved = np.linalg.solve(scaled_SLL, (g_SL / scale_SL)[..., None])[..., 0]
    except np.linalg.LinAlgError:
        return np.full_like(g_SL, np.nan)
    result: Array = solved / scale_SL
    return result
