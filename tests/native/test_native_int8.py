"""The integer kernels, whose bits are fixed by native/kernels.h: the same in every table.

T tokens, S slots, I inputs, O outputs, G groups of 32 outputs.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_support import KERNELS, Int4, random_int4

from mobilemoe.engine._native import testing

kernels = pytest.mark.parametrize("kernel", KERNELS)
floats = st.floats(width=32, allow_nan=True, allow_infinity=True)
SMALLEST = np.float32(1e-30)  # below it a block counts as zeros


def rows(tokens, width, seed=1):
    rng = np.random.default_rng(seed)
    x_TI = rng.standard_normal((tokens, width)) * np.exp(rng.standard_normal((tokens, width)))
    return x_TI.astype(np.float32)


def scaled(x_I):
    """Return what `scale_row` must: values [I] up to 127 and scales [I / 32]."""
    blocks = x_I.reshape(-1, 32)
    largest = np.abs(blocks).max(-1)  # NaN wins over infinity, as both over numbers
    with np.errstate(all="ignore"):
        inverse, scales = np.float32(127) / largest, largest / np.float32(127)
        values = blocks * inverse[:, None]
    values[~(np.isfinite(largest) & (largest >= SMALLEST))] = 0
    scales[largest < SMALLEST] = 0
    scales[~np.isfinite(largest)] = np.nan
    return values.ravel(), scales


def scaled_rows(x_TI):
    values, scales = zip(*map(scaled, x_TI), strict=True)
    return np.stack(values), np.stack(scales)


def expert_twin(w: Int4, values_TI, scales_TB, rows_S, group):
    """Return the columns [S, 32] of one group, rounded to float32 after each step."""
    scale_I = w.scale_bits.view(np.float16)[:, group].astype(np.float32)
    nibbles_IO = w.integers[:, 32 * group : 32 * group + 32]
    y_SO = np.zeros((len(rows_S), 32), np.float32)
    for block in range(len(scale_I) // 32):
        at = slice(32 * block, 32 * block + 32)
        largest = np.abs(scale_I[at]).max()
        usable = np.isfinite(largest) and largest > 0
        ratio_I = scale_I[at] * (np.float32(1) / largest) if usable else np.zeros(32, np.float32)
        exact_SI = values_TI[rows_S][:, at].astype(np.float64) * ratio_I.astype(np.float64)
        b_SI = np.rint(exact_SI)
        assert np.abs(b_SI).max() <= 127
        factor_S = scales_TB[rows_S, block] * (largest if largest < np.inf else np.float32(np.nan))
        y_SO += (b_SI @ nibbles_IO[at]).astype(np.float32) * factor_S[:, None]
    return y_SO


def check_expert(w, x_TI, rows_S, begin, end):
    """Compare every kernel with the twin, bit by bit; groups that were not asked for stay NaN."""
    values_TI, scales_TB = scaled_rows(x_TI)
    expected_SO = np.full((len(rows_S), w.integers.shape[1]), np.nan, np.float32)
    for group in range(begin, end):
        columns = slice(32 * group, 32 * group + 32)
        expected_SO[:, columns] = expert_twin(w, values_TI, scales_TB, rows_S, group)
    for kernel in KERNELS:
        y_SO = testing.expert_int8(
            w.qweight, w.scale_bits, values_TI, scales_TB, rows_S, begin, end, kernel
        )
        assert np.array_equal(y_SO, expected_SO, equal_nan=True), kernel


def slots(*indices):
    return np.array(indices, np.int32)


@pytest.mark.parametrize("shape", [(32, 32), (64, 96), (288, 160), (96, 512)])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 60, 61])
def test_experts_are_the_formula_for_any_number_of_slots(shape, count):
    w, x_TI = random_int4(*shape), rows(count, shape[0])
    check_expert(w, x_TI, np.arange(count, dtype=np.int32), 0, shape[1] // 32)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_experts_are_the_formula_for_any_rows_and_groups(data):
    """Rows permuted and repeated, a part of the groups, scales of both signs and of any size."""
    blocks, groups = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 9))
    w = random_int4(32 * blocks, 32 * groups, data.draw(st.integers(0, 1000)))
    exponents = st.lists(st.integers(-24, 12), min_size=blocks * 32, max_size=blocks * 32)
    factors_I = 2.0 ** np.array(data.draw(exponents)) * np.resize([1, -1, 1], 32 * blocks)
    scale = (w.scale_bits.view(np.float16) * factors_I[:, None]).astype(np.float16)
    w = Int4(w.qweight, scale.view(np.uint16), w.integers, w.values)
    x_TI = rows(6, 32 * blocks, data.draw(st.integers(0, 1000)))
    rows_S = slots(*data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=21)))
    begin = data.draw(st.integers(0, groups - 1))
    check_expert(w, x_TI, rows_S, begin, data.draw(st.integers(begin + 1, groups)))


def test_ties_of_folded_activations_round_to_even():
    """Half-way cases: 127 x 0.5 and the odd integers below it."""
    x_TI = np.zeros((1, 32), np.float32)
    x_TI[0] = [127, *range(-31, 31, 2)]
    scale = np.full((32, 1), 0.5, np.float16)
    scale[0] = 1
    w = random_int4(32, 32)
    w = Int4(w.qweight, scale.view(np.uint16), w.integers, w.values)
    check_expert(w, x_TI, slots(0), 0, 1)


@pytest.mark.parametrize("bad", [0x7C00, 0xFC00, 0x7E00, 0xFE01, 0x0000, 0x8000, 0x0001, 0x7BFF])
def test_scales_of_every_kind_follow_the_formula(bad):
    """Infinities, NaN, zeros of both signs, the smallest and the largest F16."""
    w = random_int4(96, 96)
    one = w.scale_bits.copy()
    one[40, 1] = bad
    whole = one.copy()
    whole[32:64, 1] = bad
    for bits in (one, whole):
        spoiled = Int4(w.qweight, bits, w.integers, w.values)
        check_expert(spoiled, rows(5, 96), slots(4, 0, 2), 0, 3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0, 1e-31, 1e-30, 3e38])
def test_activations_of_every_kind_follow_the_formula(bad):
    x_TI = rows(3, 96)
    x_TI[1, 32:64] *= 0
    x_TI[1, 40] = bad
    check_expert(random_int4(96, 64), x_TI, slots(0, 1, 2, 1), 0, 2)


@kernels
@settings(max_examples=100, deadline=None)
@given(block=st.lists(floats, min_size=64, max_size=64), factor=st.sampled_from([1.0, 1e-30, 0.0]))
def test_rows_for_experts_are_scaled_by_the_rule(kernel, block, factor):
    with np.errstate(all="ignore"):
        x_I = np.array(block, np.float32) * np.float32(factor)
    expected_I, expected_B = scaled(x_I)
    values_I, scales_B = testing.scale_row(x_I, kernel)
    assert np.array_equal(values_I, expected_I)
    assert np.array_equal(scales_B, expected_B, equal_nan=True)


@pytest.mark.parametrize("outputs", [1, 15, 16, 17, 31, 32, 33, 70])
@pytest.mark.parametrize("tokens", [1, 2, 3, 4, 5, 8, 11, 67])
def test_linear_products_have_the_same_bits_in_every_table(outputs, tokens):
    for inputs in (32, 96, 256, 288, 1056):
        w, x_TI = random_int4(outputs, inputs), rows(tokens, inputs)
        x_TI[0, :32] = 0
        first, *others = (
            testing.linear(w.qweight, w.scale_bits, x_TI, True, kernel).tobytes()
            for kernel in KERNELS
        )
        assert all(other == first for other in others), inputs


def linear_twin(w: Int4, x_TI):
    """Return y [T, O], rounded to float32 after each step."""
    scale_OB = w.scale_bits.view(np.float16).astype(np.float32)
    values_TI, scales_TB = scaled_rows(x_TI)
    integers_TI = np.rint(values_TI).astype(np.float64)
    y_TO = np.zeros((len(x_TI), len(w.integers)), np.float32)
    for block in range(scale_OB.shape[1]):
        at = slice(32 * block, 32 * block + 32)
        sums_TO = (integers_TI[:, at] @ w.integers[:, at].T).astype(np.float32)
        y_TO += sums_TO * (scale_OB[:, block] * scales_TB[:, block, None])
    return y_TO


@kernels
@pytest.mark.parametrize("shape", [(1, 32), (33, 96), (16, 288), (70, 1056)])  # (O, I)
def test_linear_products_are_the_formula(kernel, shape):
    w, x_TI = random_int4(*shape), rows(7, shape[1])
    y_TO = testing.linear(w.qweight, w.scale_bits, x_TI, True, kernel)
    assert np.array_equal(y_TO, linear_twin(w, x_TI))
