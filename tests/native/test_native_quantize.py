"""Activation quantisation: the rule, its edge cases, and equal bits in every kernel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_support import KERNELS

from mobilemoe.engine._native import testing

floats = st.floats(width=32, allow_nan=True, allow_infinity=True)
EVEN_FIRST = np.concatenate([np.arange(0, 32, 2), np.arange(1, 32, 2)])


def naive_block(x):
    """int8 values in stored order, and the scale."""
    largest = np.abs(x).max()
    if not np.isfinite(largest):
        return np.zeros(32, np.int8), np.float32(np.nan)
    if largest < np.float32(1e-30):
        return np.zeros(32, np.int8), np.float32(0)
    values = np.rint(x * (np.float32(127) / largest)).astype(np.int8)
    return values[EVEN_FIRST], largest / np.float32(127)


@pytest.mark.parametrize("kernel", KERNELS)
@settings(max_examples=150, deadline=None)
@given(block=st.lists(floats, min_size=32, max_size=32), factor=st.sampled_from([1.0, 1e-30, 0.0]))
def test_each_block_follows_the_rule(kernel, block, factor):
    with np.errstate(all="ignore"):
        x = np.array(block, np.float32) * np.float32(factor)
    values, scales, sums = testing.quantize(x, kernel)
    expected_values, expected_scale = naive_block(x)
    assert np.array_equal(values, expected_values)
    assert np.array_equal(scales, [expected_scale], equal_nan=True)
    assert sums[0] == int(expected_values.astype(np.int64).sum())


@pytest.mark.parametrize("kernel", KERNELS)
def test_ties_round_to_even(kernel):
    x = np.zeros(32, np.float32)
    x[:5] = [127, 0.5, 1.5, -0.5, -2.5]
    values, scales, _ = testing.quantize(x, kernel)
    natural = np.empty(32, np.int8)
    natural[EVEN_FIRST] = values
    assert scales[0] == 1 and natural[:5].tolist() == [127, 0, 2, 0, -2]


@pytest.mark.parametrize("kernel", KERNELS)
@settings(max_examples=100, deadline=None)
@given(block=st.lists(floats, min_size=64, max_size=64))
def test_the_rest_is_what_the_integers_leave(kernel, block):
    x = np.array(block, np.float32)
    *parts, rest = testing.quantize(x, kernel, with_rest=True)
    for part, alone in zip(parts, testing.quantize(x, kernel), strict=True):
        assert part.tobytes() == alone.tobytes()
    values = np.empty((2, 32), np.float32)
    values[:, EVEN_FIRST] = parts[0].reshape(2, 32)
    with np.errstate(invalid="ignore"):
        expected = x - (values * parts[1][:, None]).ravel()
    assert np.array_equal(rest, expected, equal_nan=True)
