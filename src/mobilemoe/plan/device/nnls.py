"""Least squares without negative coefficients (Lawson and Hanson 1974, chapter 23), in numpy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
_TOLERANCE = 1e-10


def nonnegative_least_squares(matrix_NK: Floats, target_N: Floats) -> Floats:
    """Return x_K >= 0 that minimises the norm of `matrix_NK @ x_K - target_N`.

    Columns are brought to one size first, so that amounts of any unit mix. A column of zeros
    gets 0.
    """
    scale_K = np.abs(matrix_NK).max(axis=0, initial=0.0)
    scale_K = np.where(scale_K > 0, scale_K, 1.0)
    return _active_set(matrix_NK / scale_K, target_N) / scale_K


def _active_set(matrix_NK: Floats, target_N: Floats) -> Floats:
    columns = matrix_NK.shape[1]
    x_K, free_K = np.zeros(columns), np.zeros(columns, dtype=bool)
    tolerance = _TOLERANCE * max(1.0, float(np.abs(matrix_NK.T @ target_N).max(initial=0.0)))
    for _ in range(10 * columns):
        gain_K = np.where(free_K, -np.inf, matrix_NK.T @ (target_N - matrix_NK @ x_K))
        best = int(np.argmax(gain_K)) if columns else 0
        if not columns or gain_K[best] <= tolerance:
            break
        free_K[best] = True
        x_K = _inside(matrix_NK, target_N, x_K, free_K)
    return x_K


def _inside(
    matrix_NK: Floats, target_N: Floats, x_K: Floats, free_K: npt.NDArray[np.bool_]
) -> Floats:
    """Return the best x over the free columns; those that would turn negative are tied to 0."""
    while True:
        wanted_K = np.zeros_like(x_K)
        wanted_K[free_K] = np.linalg.lstsq(matrix_NK[:, free_K], target_N, rcond=None)[0]
        below_K = free_K & (wanted_K <= 0)
        if not below_K.any():
            return wanted_K
        step = np.min(x_K[below_K] / (x_K[below_K] - wanted_K[below_K] + 1e-300))
        x_K = x_K + step * (wanted_K - x_K)
        free_K &= x_K > _TOLERANCE
        x_K[~free_K] = 0.0
