"""INT4 matrix products of both kernels against plain numpy, with derived tolerances.

T tokens, S slots, I inputs, O outputs, B blocks of 32 inputs.
"""

from __future__ import annotations

import numpy as np
import pytest
from native_support import EPS, KERNELS, random_int4, worst

from mobilemoe.engine._native import testing

LINEAR_SHAPES = [(1, 32), (33, 64), (64, 288), (7, 256), (100, 1056)]  # (O, I)
EXPERT_SHAPES = [(32, 32), (64, 96), (256, 288), (96, 512), (288, 32)]  # (I, O)
TOKENS = [1, 2, 5, 67]
kernels = pytest.mark.parametrize("kernel", KERNELS)
both_modes = pytest.mark.parametrize("int8", [False, True])


def rows(tokens, width, seed=1):
    return np.random.default_rng(seed).standard_normal((tokens, width)).astype(np.float32)


def block_maxima(x_TI):
    """Return the largest magnitude of each element's block of 32."""
    blocks = np.abs(x_TI).reshape(*x_TI.shape[:-1], -1, 32).max(-1)
    return np.repeat(blocks, 32, axis=-1)


@kernels
@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("shape", LINEAR_SHAPES)
def test_linear_fp32_within_the_rounding_of_its_sums(kernel, tokens, shape):
    w, x_TI = random_int4(*shape), rows(tokens, shape[1])
    y_TO = testing.linear(w.qweight, w.scale_bits, x_TI, False, kernel)
    expected_TO = x_TI @ w.values.T
    bound_TO = (shape[1] + 2) * EPS * (np.abs(x_TI) @ np.abs(w.values).T)
    assert (np.abs(y_TO - expected_TO) <= bound_TO).all(), worst(y_TO, expected_TO)


@kernels
@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("shape", LINEAR_SHAPES)
def test_linear_int8_within_half_a_step_of_each_activation(kernel, tokens, shape):
    w, x_TI = random_int4(*shape), rows(tokens, shape[1])
    y_TO = testing.linear(w.qweight, w.scale_bits, x_TI, True, kernel)
    expected_TO = x_TI @ w.values.T
    bound_TO = (block_maxima(x_TI) / 254 * 1.001) @ np.abs(w.values).T
    assert (np.abs(y_TO - expected_TO) <= bound_TO).all(), worst(y_TO, expected_TO)


@kernels
@pytest.mark.parametrize("slots", TOKENS)
@pytest.mark.parametrize("shape", EXPERT_SHAPES)
def test_expert_fp32_within_the_rounding_of_its_sums(kernel, slots, shape):
    w, x_SI = random_int4(*shape), rows(slots, shape[0])
    y_SO = testing.expert(w.qweight, w.scale_bits, x_SI, False, kernel)
    expected_SO = x_SI @ w.values
    bound_SO = (shape[0] + 4) * EPS * (np.abs(x_SI) @ np.abs(w.values))
    assert (np.abs(y_SO - expected_SO) <= bound_SO).all(), worst(y_SO, expected_SO)


@kernels
@pytest.mark.parametrize("slots", TOKENS)
@pytest.mark.parametrize("shape", EXPERT_SHAPES)
def test_expert_int8_within_half_a_step_of_each_folded_activation(kernel, slots, shape):
    w, x_SI = random_int4(*shape), rows(slots, shape[0])
    y_SO = testing.expert(w.qweight, w.scale_bits, x_SI, True, kernel)
    expected_SO = x_SI @ w.values
    scale_IO = np.repeat(w.scale_bits.view(np.float16).astype(np.float64), 32, axis=1)
    step_SOI = block_maxima(x_SI)[:, None, :] * block_maxima(scale_IO.T) / 254 * 1.001
    bound_SO = np.einsum("soi,io->so", step_SOI, np.abs(w.integers))
    assert (np.abs(y_SO - expected_SO) <= bound_SO).all(), worst(y_SO, expected_SO)


@kernels
def test_integer_parts_are_exact(kernel):
    """With scales that are powers of two every product is a small integer times one."""
    x_TI = np.random.default_rng(3).integers(-127, 128, (9, 288)).astype(np.float32)
    x_TI[:, ::32] = 127  # every block's largest magnitude, so that its scale is 1
    w = random_int4(40, 288, powers_of_two=True)
    y_TO = testing.linear(w.qweight, w.scale_bits, x_TI, True, kernel)
    assert np.array_equal(y_TO, x_TI @ w.values.T)
    one = np.full((288, 2), np.float16(1)).view(np.uint16)
    w = random_int4(288, 64)
    y_SO = testing.expert(w.qweight, one, x_TI, True, kernel)
    assert np.array_equal(y_SO, x_TI @ w.integers)


@kernels
def test_extreme_nibbles_and_activations_do_not_overflow(kernel):
    full_OI = np.full((32, 1024), 0x88, np.uint8)  # every weight is -8
    scale = np.full((32, 64), np.float16(1)).view(np.uint16)
    x = np.full((2, 2048), 127, np.float32)
    x[1] *= -1
    y = testing.linear(full_OI, scale, x, True, kernel)
    assert (y[0] == -8 * 127 * 2048).all() and (y[1] == 8 * 127 * 2048).all()
    full_IO = np.full((2048, 32), 0x77, np.uint8)  # every weight is 7
    scale = np.full((2048, 2), np.float16(1)).view(np.uint16)
    y = testing.expert(full_IO, scale, x, True, kernel)
    assert (y[0] == 7 * 127 * 2048).all() and (y[1] == -7 * 127 * 2048).all()


@kernels
@both_modes
@pytest.mark.parametrize("product", [testing.linear, testing.expert])
def test_bits_depend_neither_on_threads_nor_on_other_tokens(kernel, int8, product):
    w, x = random_int4(160, 160), rows(70, 160)
    together = product(w.qweight, w.scale_bits, x, int8, kernel, 1)
    for threads in (2, 3, 4):
        again = product(w.qweight, w.scale_bits, x, int8, kernel, threads)
        assert again.tobytes() == together.tobytes()
    alone = [product(w.qweight, w.scale_bits, x[t : t + 1], int8, kernel) for t in range(70)]
    assert np.concatenate(alone).tobytes() == together.tobytes()


@kernels
@both_modes
@pytest.mark.parametrize("product", [testing.linear, testing.expert])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_bad_activation_spoils_its_own_token_only(kernel, int8, product, bad):
    w, x = random_int4(64, 64), rows(3, 64)
    clean = product(w.qweight, w.scale_bits, x, int8, kernel)
    x[1, 40] = bad
    y = product(w.qweight, w.scale_bits, x, int8, kernel)
    assert not np.isfinite(y[1]).any() or not int8
    assert not np.isfinite(y[1]).all()
    assert np.array_equal(y[[0, 2]], clean[[0, 2]])


@kernels
def test_mismatched_shapes_are_refused(kernel):
    w = random_int4(64, 64)
    with pytest.raises(ValueError, match="width"):
        testing.linear(w.qweight, w.scale_bits, rows(1, 32), True, kernel)
    with pytest.raises(ValueError, match="INT4"):
        testing.linear(w.qweight, w.scale_bits[:, :1].copy(), rows(1, 64), True, kernel)
