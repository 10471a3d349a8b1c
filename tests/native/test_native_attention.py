"""Attention over cached positions, and the exponential below it, against numpy.

N positions, d head dim.
"""

from __future__ import annotations

import numpy as np
import pytest
from native_support import EPS, KERNELS

from mobilemoe.engine._native import testing


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("d", [2, 8, 30, 64, 72, 128, 150])
@pytest.mark.parametrize("positions", [1, 2, 77])
def test_attention_agrees_with_numpy(kernel, d, positions):
    rng = np.random.default_rng(d)
    q_d = rng.standard_normal(d).astype(np.float32)
    k_Nd, v_Nd = rng.standard_normal((2, positions, d)).astype(np.float32)
    out_d = testing.attend(q_d, k_Nd, v_Nd, 0.3, kernel)
    scores_N = 0.3 * (k_Nd.astype(np.float64) @ q_d)
    p_N = np.exp(scores_N - scores_N.max())
    expected_d = (p_N / p_N.sum()) @ v_Nd
    # Errors of a score act as relative errors of its weight.
    score_error = 0.3 * (d + 4) * EPS * (np.abs(k_Nd) @ np.abs(q_d)).max()
    bound = (2 * score_error + (positions + 16) * EPS) * np.abs(v_Nd).max()
    assert np.abs(out_d - expected_d).max() <= bound


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_nan_key_spoils_the_output_and_nothing_else_breaks(kernel):
    k_Nd = np.ones((3, 8), np.float32)
    k_Nd[1, 2] = np.nan
    out_d = testing.attend(np.ones(8, np.float32), k_Nd, np.ones((3, 8), np.float32), 1.0, kernel)
    assert np.isnan(out_d).all()


def test_exp_is_within_two_units_in_the_last_place():
    x = np.linspace(-87.2, 88.2, 40_001).astype(np.float32)
    expected = np.exp(x.astype(np.float64))
    relative = np.abs(testing.exp(x) - expected) / expected
    assert relative.max() <= 4 * EPS, f"at {x[np.argmax(relative)]}: {relative.max()}"


def test_exp_outside_its_range():
    low, high, nan, zero = testing.exp(np.array([-200, 1e9, np.nan, 0], np.float32))
    assert low == 0 and np.isfinite(high) and high > 2e38 and np.isnan(nan) and zero == 1
