"""Attention over an int8 cache, F16, and SwiGLU: every kernel against numpy.

N positions, R query rows, d head dim.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_support import EPS, KERNELS, worst

from mobilemoe.engine._native import testing

kernels = pytest.mark.parametrize("kernel", KERNELS)
BLOCK = 64  # positions that share a maximum and the scale of their weights
LEVELS = 16383  # of a weight
HALVES = np.arange(1 << 16, dtype=np.uint16)
floats = st.floats(width=32, allow_nan=True, allow_infinity=True)


def quantized(x_Nd):
    """Return the integers [N, d] and the scales [N] of cached keys or values."""
    largest_N1 = np.abs(x_Nd).max(-1, keepdims=True)
    inverse_N1 = np.divide(127, largest_N1, out=np.zeros_like(largest_N1), where=largest_N1 > 0)
    return np.rint(x_Nd * inverse_N1).astype(np.float64), largest_N1[:, 0] / np.float32(127)


class Case:
    """Random keys, values and queries; row r sees `positions_R[r]` positions."""

    def __init__(self, positions_R, d, seed=0, size=1.0):
        rng = np.random.default_rng(seed)
        self.positions_R = np.array(positions_R, np.int64)
        shape = (int(self.positions_R.max()), d)
        self.k_Nd, self.v_Nd = rng.standard_normal((2, *shape)).astype(np.float32)
        self.v_Nd *= np.exp(rng.standard_normal((shape[0], 1))).astype(np.float32)
        self.q_Rd = rng.integers(-16256, 16257, (len(positions_R), d))
        self.scales_R = rng.uniform(0.5, 1, len(positions_R)).astype(np.float32)
        self.scales_R *= np.float32(size * 3 / 16256 / np.sqrt(d))

    def run(self, kernel, rows=slice(None)):
        high_Rd = (self.q_Rd + 64) >> 7
        return testing.attend_int8(
            self.k_Nd,
            self.v_Nd,
            high_Rd[rows].astype(np.int8),
            (self.q_Rd - 128 * high_Rd)[rows].astype(np.int8),
            self.scales_R[rows],
            self.positions_R[rows],
            kernel,
        )

    def expected(self):
        """Return the output [R, d] in float64, and by how much rounding may move it."""
        k_Nd, k_scales_N = quantized(self.k_Nd)
        v_Nd, v_scales_N = quantized(self.v_Nd)
        out_Rd, bound_Rd = np.empty((2, *self.q_Rd.shape))
        for r, positions in enumerate(self.positions_R):
            scores_N = k_Nd[:positions] @ self.q_Rd[r] * k_scales_N[:positions] * self.scales_R[r]
            p_N = np.exp(scores_N - scores_N.max())
            weights_N = p_N * v_scales_N[:positions]
            # A weight rounds by half a step of the largest of its block; the scores and the
            # factors of each block by a few units in the last place.
            blocks = -(-positions // BLOCK)
            padded = np.zeros(blocks * BLOCK)
            padded[:positions] = weights_N
            steps_N = np.repeat(padded.reshape(blocks, BLOCK).max(-1) / LEVELS, BLOCK)[:positions]
            rounding = (6 * np.abs(scores_N).max() + 3 * positions + 40) * EPS
            magnitude_Nd = np.abs(v_Nd[:positions])
            out_Rd[r] = weights_N @ v_Nd[:positions] / p_N.sum()
            bound_Rd[r] = (0.51 * steps_N + rounding * weights_N) @ magnitude_Nd / p_N.sum()
        return out_Rd, bound_Rd


@kernels
@pytest.mark.parametrize("d", [16, 64, 80, 128, 512])
@pytest.mark.parametrize(
    "positions_R",
    [[1], [2, 1], [3, 3, 3], [63, 64, 65], [64], [65], [5, 70, 128, 129, 1], [200] * 4],
    ids=str,
)
def test_attention_over_int8_agrees_with_numpy(kernel, d, positions_R):
    for size in (1.0, 8.0):  # even weights, and some that fill a softmax
        case = Case(positions_R, d, size=size)
        out_Rd, (expected_Rd, bound_Rd) = case.run(kernel), case.expected()
        assert (np.abs(out_Rd - expected_Rd) <= bound_Rd).all(), worst(out_Rd, expected_Rd)


@kernels
def test_weights_have_14_bits_and_queries_15(kernel):
    """With fewer the error would be many times as large as this."""
    case = Case([192] * 32, 64, seed=3)
    expected_Rd, _ = case.expected()
    v_scales_N = quantized(case.v_Nd)[1]
    error = np.sqrt(np.square(case.run(kernel) - expected_Rd).mean())
    assert error < 0.05 * v_scales_N.mean() / np.sqrt(12)  # what the cache itself rounds away


@kernels
@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 150), min_size=1, max_size=32), st.sampled_from([16, 48, 64]))
def test_a_row_does_not_depend_on_its_neighbours_or_on_later_positions(kernel, positions_R, d):
    case = Case(positions_R, d)
    together_Rd = case.run(kernel)
    for r, positions in enumerate(positions_R):
        case.k_Nd[positions:], case.v_Nd[positions:] = np.nan, np.inf
        assert case.run(kernel, slice(r, r + 1)).tobytes() == together_Rd[r].tobytes()
        case = Case(positions_R, d)


@kernels
@pytest.mark.parametrize("part", ["k_Nd", "v_Nd"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_bad_key_or_value_spoils_the_rows_that_see_it(kernel, part, bad):
    case = Case([70, 71, 72, 100, 150], 32)
    clean_Rd = case.run(kernel)
    getattr(case, part)[71, 3] = bad
    out_Rd = case.run(kernel)
    assert out_Rd[:2].tobytes() == clean_Rd[:2].tobytes()
    assert np.isnan(out_Rd[2:]).all()


@kernels
def test_a_bad_query_spoils_its_own_row(kernel):
    case = Case([70, 70, 70], 32)
    clean_Rd = case.run(kernel)
    case.scales_R[1] = np.nan
    out_Rd = case.run(kernel)
    assert out_Rd[[0, 2]].tobytes() == clean_Rd[[0, 2]].tobytes()
    assert np.isnan(out_Rd[1]).all()


@kernels
def test_zeros_give_means_and_zeros(kernel):
    case = Case([100, 3], 32)
    case.q_Rd[0] = 0
    mean_d, _ = case.expected()
    assert np.allclose(case.run(kernel)[0], mean_d[0], rtol=0, atol=2e-3)
    case.k_Nd[:] = 0
    mean_Rd, bound_Rd = case.expected()
    assert (np.abs(case.run(kernel) - mean_Rd) <= bound_Rd).all()
    case.v_Nd[:] = 0
    assert not case.run(kernel).any()


def test_extreme_integers_do_not_overflow():
    """Every key, query and value at its largest, of both signs, for the widest head."""
    for kernel in KERNELS:
        for key, query in ((1, 16256), (-1, 16256), (1, -16256), (-1, -16256)):
            case = Case([64, 65], 512)
            case.k_Nd[:], case.v_Nd[:] = key, -1
            case.q_Rd[:] = query
            assert np.allclose(case.run(kernel), -1, rtol=1e-4), (kernel, key, query)


@kernels
def test_floats_become_halves_and_halves_floats(kernel):
    widened = testing.widen(HALVES, kernel)
    assert np.array_equal(widened, HALVES.view(np.float16).astype(np.float32), equal_nan=True)
    assert np.array_equal(np.signbit(widened), HALVES >= 0x8000)
    numbers = ~np.isnan(widened)
    assert np.array_equal(testing.to_half(widened)[numbers], HALVES[numbers])
    assert np.isnan(testing.to_half(widened)[~numbers].view(np.float16)).all()
    for width in (1, 7, 8, 9, 31):
        assert testing.widen(HALVES[:width].copy(), kernel).tobytes() == widened[:width].tobytes()


def assert_nearest_halves(x):
    with np.errstate(over="ignore"):
        expected = x.astype(np.float16)
    actual = testing.to_half(x).view(np.float16)
    assert np.array_equal(actual, expected, equal_nan=True)
    numbers = ~np.isnan(x)
    assert np.array_equal(np.signbit(actual[numbers]), np.signbit(expected[numbers]))


def test_the_middle_between_two_halves_goes_to_the_even_one():
    """And its two neighbours to the nearer one; the last middle is where infinity begins."""
    finite = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    middle = (finite + np.append(finite[1:], np.float32(65536))) / 2
    for x in (middle, np.nextafter(middle, np.float32(0)), np.nextafter(middle, np.float32(1e9))):
        assert_nearest_halves(np.concatenate([x, -x]))


@settings(max_examples=300, deadline=None)
@given(st.lists(floats, min_size=1, max_size=40), st.sampled_from([1.0, 1e-5, 1e-38]))
def test_any_float_becomes_the_nearest_half(values, factor):
    with np.errstate(all="ignore"):
        assert_nearest_halves(np.array(values, np.float32) * np.float32(factor))


@kernels
@pytest.mark.parametrize("width", [1, 7, 16, 17, 31, 32, 33, 160])
def test_swiglu_is_within_a_few_roundings(kernel, width):
    rng = np.random.default_rng(width)
    gate, up = (8 * rng.standard_normal((2, width))).astype(np.float32)
    expected = gate.astype(np.float64) / (1 + np.exp(-gate.astype(np.float64))) * up
    # The exponential is off by 2 units in the last place; a sum, a division and a product round.
    for in_place in (False, True):
        actual = testing.silu_multiply(gate, up, kernel, in_place)
        assert (np.abs(actual - expected) <= 8 * EPS * np.abs(expected)).all()


@kernels
def test_swiglu_at_its_ends(kernel):
    gate = np.array([-np.inf, -1e30, -200, -80, -0.0, 0, 80, 1e30, np.inf, np.nan, 1], np.float32)
    up = np.ones(len(gate), np.float32)
    up[-1] = np.nan
    out = testing.silu_multiply(gate, up, kernel)
    assert np.isnan(out[-2:]).all()
    assert not np.isnan(out[1:9]).any()
    assert out[5] == 0 and (np.abs(out[2:5]) < 1e-30).all()
    assert out[6:9].tolist() == [80, np.float32(1e30), np.inf]
