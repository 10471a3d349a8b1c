"""The INT4 format against its definition: scale 2 max|W| / 15 in float16, round, clamp, pack."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mobilemoe.errors import MobileMoEError
from mobilemoe.quant import dequantize, pack, quantize, unpack

NIBBLES = np.arange(-8, 8, dtype=np.int8)
SMALLEST_SCALE = Fraction(1, 2**24)  # float16's smallest positive number
WEIGHTS = st.floats(-400_000, 400_000, width=32)
GROUP_SHAPES = st.tuples(st.integers(1, 3), st.sampled_from([32, 64, 96]))


def group(*values: float) -> np.ndarray:
    return np.array([*values, *[0.0] * (32 - len(values))], np.float32)


def exact_integer(weight: float, scale: float) -> int:
    """Round weight / scale to the nearest integer, ties to even, in exact arithmetic; clamp."""
    return max(-8, min(7, round(Fraction(weight) / Fraction(scale))))


def test_scale_is_two_fifteenths_of_the_largest_magnitude_in_float16():
    for largest in (1.0, -3.7, 0.02, 65504.0, 491_000.0):
        _, scales = quantize(group(largest, 0.01))
        assert scales.dtype == np.float16
        assert scales.shape == (1,)
        assert scales[0] == np.float16(np.float32(abs(largest)) * np.float32(2 / 15))


def test_rounds_to_nearest_ties_to_even_and_clamps():
    # The largest magnitude 7.5 makes the scale exactly 1.
    values = group(7.5, -7.5, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 6.49, 6.51, -7.4, 3.0)
    integers, scales = quantize(values)
    assert scales.tolist() == [1.0]
    assert integers[:12].tolist() == [7, -8, 0, 2, 2, 0, -2, -2, 6, 7, -7, 3]


@settings(max_examples=100, deadline=None)
@given(hnp.arrays(np.float32, GROUP_SHAPES, elements=WEIGHTS))
def test_integers_equal_exact_arithmetic_and_the_error_follows_from_the_scale(weight):
    integers, scales = quantize(weight)
    error = np.abs(dequantize(integers, scales).astype(np.float64) - weight)
    for index, value in np.ndenumerate(weight):
        scale = float(scales[index[0], index[1] // 32])
        if scale == 0:
            assert integers[index] == 0
            # 2/15 |w| rounded to 0: at most half of float16's smallest number
            assert Fraction(abs(float(value))) * 2 / 15 <= SMALLEST_SCALE / 2 * Fraction(1.0001)
            continue
        expected = exact_integer(float(value), scale)
        ratio = Fraction(float(value)) / Fraction(scale)
        near_tie = abs(abs(ratio % 1) - Fraction(1, 2)) < Fraction(1, 10**6)  # float32 division
        assert integers[index] == expected or (near_tie and abs(integers[index] - expected) == 1)
        # Half a step; where clamped, also 7.5 times what float16 took from the scale.
        slack = 0.0 if -8 <= ratio <= 7 else 7.5 * max(2.0**-11 * scale, 2.0**-25)
        assert error[index] <= scale * (0.5 + 1e-6) + slack, (index, value, scale)


def test_groups_are_independent_and_run_along_the_last_axis():
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((2, 3, 96)).astype(np.float32)
    integers, scales = quantize(weight)
    assert integers.shape == (2, 3, 96)
    assert scales.shape == (2, 3, 3)
    for e, i, g in np.ndindex(2, 3, 3):
        alone, scale = quantize(weight[e, i, 32 * g : 32 * g + 32])
        assert np.array_equal(integers[e, i, 32 * g : 32 * g + 32], alone)
        assert scales[e, i, g] == scale[0]


def test_zero_and_underflowing_groups_become_zeros_with_scale_zero():
    weight = np.stack([group(), group(1e-8, -1e-9), group(2.0**-25)])
    integers, scales = quantize(weight)
    assert not integers.any()
    assert not scales.any()
    assert not dequantize(integers, scales).any()


def test_the_smallest_scale_still_carries_values():
    integers, scales = quantize(group(7.5 * 2.0**-24, -3 * 2.0**-24))
    assert scales[0] == np.float16(2.0**-24)
    assert integers[:2].tolist() == [7, -3]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 491_400.0, -1e30, 3.4e38])
def test_rejects_what_a_float16_scale_cannot_hold(bad):
    weight = np.stack([group(1.0), group(0.0, bad, 2.0)])
    with pytest.raises(MobileMoEError, match="NaN, infinite or above 491,400"):
        quantize(weight)


def test_accepts_the_largest_weight_below_the_limit():
    _, scales = quantize(group(491_399.0))
    assert scales[0] == np.float16(65504.0)


@pytest.mark.parametrize("size", [1, 16, 31, 33, 48, 100])
def test_rejects_a_last_axis_that_is_no_multiple_of_32(size):
    with pytest.raises(MobileMoEError, match=f"last axis is {size}, not a multiple of 32"):
        quantize(np.ones((2, size), np.float32))


def test_pack_puts_even_positions_into_the_low_nibble():
    assert pack(np.array([1, 2, -1, -8], np.int8)).tolist() == [0x21, 0x8F]


def test_pack_and_unpack_invert_each_other_on_every_pair_of_nibbles():
    pairs = np.stack(np.meshgrid(NIBBLES, NIBBLES), -1).reshape(256, 2)
    packed = pack(pairs)
    assert packed.shape == (256, 1)
    assert sorted(packed.ravel().tolist()) == list(range(256))
    assert np.array_equal(unpack(packed), pairs)
    every_byte = np.arange(256, dtype=np.uint8)[None]
    assert np.array_equal(pack(unpack(every_byte)), every_byte)


@settings(max_examples=100, deadline=None)
@given(
    hnp.arrays(
        np.int8,
        st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 20).map(lambda n: 2 * n)),
        elements=st.integers(-8, 7),
    )
)
def test_pack_round_trips_any_shape(integers):
    packed = pack(integers)
    assert packed.dtype == np.uint8
    assert packed.shape == (*integers.shape[:-1], integers.shape[-1] // 2)
    assert np.array_equal(unpack(packed), integers)


def test_dequantize_multiplies_each_group_by_its_own_scale():
    integers = np.tile(np.arange(-8, 8, dtype=np.int8), (2, 4))
    scales = np.array([[0.5, 2.0], [0.0, 3.0]], np.float16)
    expected = [[q * float(scales[r, c // 32]) for c, q in enumerate(integers[r])] for r in (0, 1)]
    assert dequantize(integers, scales).tolist() == expected


def test_quantize_leaves_its_input_alone():
    weight = np.linspace(-2, 2, 64, dtype=np.float32).reshape(2, 32)
    before = weight.copy()
    weight.flags.writeable = False
    quantize(weight)
    assert np.array_equal(weight, before)
