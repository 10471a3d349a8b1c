"""BF16 matrix products of every kernel against plain numpy, with derived tolerances.

T tokens, S slots, I inputs, O outputs. Every stored matrix begins at an odd address.
"""

from __future__ import annotations

import numpy as np
import pytest
from native_support import EPS, KERNELS, bf16_bytes, bf16_values, random_int4, worst

from mobilemoe.engine._native import testing

LINEAR_SHAPES = [(1, 32), (33, 64), (64, 288), (7, 256), (101, 1056)]  # (O, I)
EXPERT_SHAPES = [(32, 32), (64, 96), (256, 288), (96, 512), (288, 32)]  # (I, O)
TOKENS = [0, 1, 2, 5, 67]
kernels = pytest.mark.parametrize("kernel", KERNELS)
products = pytest.mark.parametrize("product", [testing.linear_bf16, testing.expert_bf16])


def normal(*shape, seed=1):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@kernels
@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("shape", LINEAR_SHAPES)
def test_linear_within_the_rounding_of_its_sums(kernel, tokens, shape):
    w_OI, x_TI = bf16_bytes(normal(*shape)), normal(tokens, shape[1], seed=2)
    y_TO = testing.linear_bf16(w_OI, x_TI, kernel)
    expected_TO = x_TI @ bf16_values(w_OI).T
    assert y_TO.shape == expected_TO.shape
    bound_TO = (shape[1] + 1) * EPS * (np.abs(x_TI) @ np.abs(bf16_values(w_OI)).T)
    assert (np.abs(y_TO - expected_TO) <= bound_TO).all(), worst(y_TO, expected_TO)


@kernels
@pytest.mark.parametrize("slots", TOKENS)
@pytest.mark.parametrize("shape", EXPERT_SHAPES)
def test_expert_within_the_rounding_of_its_sums(kernel, slots, shape):
    w_IO, x_SI = bf16_bytes(normal(*shape)), normal(slots, shape[0], seed=2)
    y_SO = testing.expert_bf16(w_IO, x_SI, kernel)
    expected_SO = x_SI @ bf16_values(w_IO)
    assert y_SO.shape == expected_SO.shape
    bound_SO = (shape[0] + 1) * EPS * (np.abs(x_SI) @ np.abs(bf16_values(w_IO)))
    assert (np.abs(y_SO - expected_SO) <= bound_SO).all(), worst(y_SO, expected_SO)


@kernels
def test_equal_weights_give_the_bits_of_the_exact_int4_kernels(kernel):
    """A nibble times a power of two is the same number in both formats."""
    x = normal(9, 288)
    w = random_int4(41, 288, powers_of_two=True)
    int4 = testing.linear(w.qweight, w.scale_bits, x, False, kernel)
    bf16 = testing.linear_bf16(bf16_bytes(w.values.astype(np.float32)), x, kernel)
    assert bf16.tobytes() == int4.tobytes()
    w = random_int4(288, 96, powers_of_two=True)
    int4 = testing.expert(w.qweight, w.scale_bits, x, False, kernel)
    bf16 = testing.expert_bf16(bf16_bytes(w.values.astype(np.float32)), x, kernel)
    assert bf16.tobytes() == int4.tobytes()


@kernels
@products
def test_bits_depend_neither_on_threads_nor_on_other_tokens(kernel, product):
    w, x = bf16_bytes(normal(160, 160)), normal(70, 160, seed=2)
    together = product(w, x, kernel, 1)
    for threads in (2, 3, 4):
        assert product(w, x, kernel, threads).tobytes() == together.tobytes()
    alone = [product(w, x[t : t + 1], kernel) for t in range(70)]
    assert np.concatenate(alone).tobytes() == together.tobytes()


@kernels
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_bad_weight_spoils_its_own_output_only(kernel, bad):
    w, x = normal(64, 64), np.abs(normal(3, 64, seed=2))
    spoiled = w.copy()
    spoiled[40, 50] = bad
    with np.errstate(invalid="ignore"):
        stored = bf16_bytes(spoiled)
    for product, at in ((testing.linear_bf16, 40), (testing.expert_bf16, 50)):
        clean, y = (product(weights, x, kernel) for weights in (bf16_bytes(w), stored))
        assert np.array_equal(y[:, at], np.full(3, bad, np.float32), equal_nan=True)
        others = np.arange(64) != at
        assert np.array_equal(y[:, others], clean[:, others])


@kernels
def test_every_bit_pattern_is_read_as_written(kernel):
    """Zeros of both signs, denormals, the largest, infinities and all NaN."""
    patterns = np.arange(1 << 16, dtype=np.uint16)
    w_OI = np.zeros((1 << 16, 32), "<u2")
    w_OI[:, 3] = patterns
    x_TI = np.zeros((1, 32), np.float32)
    x_TI[0, 3] = 1
    y_O = testing.linear_bf16(w_OI.view(np.uint8), x_TI, kernel)[0]
    expected_O = (patterns.astype(np.uint32) << 16).view(np.float32)
    assert np.array_equal(y_O, expected_O, equal_nan=True)
    w_IO = np.zeros((32, 1 << 16), "<u2")
    w_IO[3] = patterns
    y_O = testing.expert_bf16(w_IO.view(np.uint8), x_TI, kernel)[0]
    assert np.array_equal(y_O, expected_O, equal_nan=True)


@kernels
@products
def test_mismatched_shapes_are_refused(kernel, product):
    with pytest.raises(ValueError, match="width"):
        product(bf16_bytes(normal(64, 64)), normal(1, 32), kernel)
    with pytest.raises(ValueError, match="multiple of 32"):
        product(bf16_bytes(normal(64, 48)), normal(1, 48), kernel)
