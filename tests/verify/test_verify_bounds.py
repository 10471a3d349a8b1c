"""Each source of error against what it really does to a product, and the rules that carry it on.

T tokens, I inputs, O outputs.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilemoe.quant import dequantize, quantize
from mobilemoe.verify.bounds import LayerBounds, near_ties, turned_variance, weight_variance
from mobilemoe.verify.compare import compare_tensor
from mobilemoe.verify.files import Piece
from mobilemoe.verify.noise import (
    Int4Noise,
    Int8Noise,
    RoundingNoise,
    block_variance,
    squared_integers,
)
from mobilemoe.verify.trace import Product, RouterTrace

RNG = np.random.default_rng(0)


def int4_piece(rows, columns):
    """Return float weights [rows, columns] and the piece they round to."""
    floats = RNG.standard_normal((rows, columns)).astype(np.float32)
    integers, scales = quantize(floats)
    values = dequantize(integers, scales).astype(np.float64)
    return floats.astype(np.float64), Piece(values, scales.astype(np.float64))


def to_int8(x_TI):
    """Return x rounded to int8 in blocks of 32, as native/quantize_scale.h says."""
    blocks = x_TI.reshape(len(x_TI), -1, 32)
    scale = np.abs(blocks).max(-1, keepdims=True) / 127
    return (np.rint(blocks / np.where(scale > 0, scale, 1)) * scale).reshape(x_TI.shape)


def ratio(error_TO, variance_TO):
    return np.sqrt(np.square(error_TO).sum() / variance_TO.sum())


def linear(x_TI, piece, terms=1):
    return Product(x_TI, piece, x_TI @ piece.values.T, "linear", terms)


def test_int8_activations_err_as_expected():
    x_TI = RNG.standard_normal((60, 256)) * np.exp(RNG.standard_normal((60, 1)))
    assert 0.95 < ratio(to_int8(x_TI) - x_TI, block_variance(x_TI)) < 1.05
    _, piece = int4_piece(96, 256)
    one = linear(x_TI, piece)
    error_TO = (to_int8(x_TI) - x_TI) @ piece.values.T
    assert 0.9 < ratio(error_TO, Int8Noise().product(one, None)) < 1.1
    rest_TI = x_TI - to_int8(x_TI)
    both_TO = (to_int8(x_TI) + to_int8(rest_TI) - x_TI) @ piece.values.T
    assert 0.8 < ratio(both_TO, Int8Noise().product(linear(x_TI, piece, 2), None)) < 1.1


def folded(x_SI, scales_I):
    """Return x scales as integers times one scale per 32 inputs, as native/kernels.h says."""
    largest_SI = np.repeat(np.abs(x_SI.reshape(len(x_SI), -1, 32)).max(-1), 32, axis=1)
    step_SI = largest_SI / 127 * np.repeat(scales_I.reshape(-1, 32).max(-1), 32)
    return np.rint(x_SI * scales_I / step_SI) * step_SI


def test_scales_folded_into_the_activation_err_as_expected():
    _, piece = int4_piece(128, 96)
    x_SI = RNG.standard_normal((40, 128))
    product = Product(x_SI, piece, x_SI @ piece.values, "expert")
    wide_IO = np.repeat(piece.scales, 32, axis=1)
    integers_IO = np.divide(piece.values, wide_IO)
    actual_SO = np.concatenate(
        [
            folded(x_SI, piece.scales[:, group]) @ integers_IO[:, 32 * group : 32 * group + 32]
            for group in range(3)
        ],
        axis=1,
    )
    assert 0.93 < ratio(actual_SO - product.y_TO, Int8Noise().product(product, None)) < 1.07
    sums_BGj = squared_integers(piece)
    assert np.allclose(sums_BGj[1, 2], np.square(integers_IO[32:64, 64:96]).sum(0))


def to_int8_heads(x_GNd):
    """Return x as the int8 cache holds it, as native/kernels.h says."""
    scale_GN1 = np.abs(x_GNd).max(-1, keepdims=True) / 127
    return np.rint(x_GNd / scale_GN1) * scale_GN1


def to_f16(x_GNd):
    return x_GNd.astype(np.float16).astype(np.float64)


@pytest.mark.parametrize(("kv", "stored"), [("int8", to_int8_heads), ("fp16", to_f16)])
def test_cached_keys_err_as_expected(kv, stored):
    x_GNd = RNG.standard_normal((2, 200, 64)) * np.exp(RNG.standard_normal((2, 200, 1)))
    # Mantissas are not spread as logarithms within so small a range, which F16 shows.
    assert 0.9 < ratio(stored(x_GNd) - x_GNd, Int8Noise(kv).cached(x_GNd)) < 1.1


def test_only_the_fast_mode_rounds_its_cache():
    x_GNd = RNG.standard_normal((2, 3, 16))
    for noise in (RoundingNoise(), Int4Noise(), Int8Noise("fp32")):
        assert not noise.cached(x_GNd).any()


@pytest.mark.parametrize("layout", ["linear", "expert"])
def test_rounded_weights_err_as_expected(layout):
    floats, piece = int4_piece(128, 128)
    x_TI = RNG.standard_normal((50, 128))
    turn = (lambda w: w) if layout == "expert" else np.transpose
    product = Product(x_TI, piece, x_TI @ turn(piece.values), layout)
    error_TO = x_TI @ turn(floats - piece.values)
    assert 0.93 < ratio(error_TO, Int4Noise().product(product, None)) < 1.07


@pytest.mark.parametrize("mean", [0.0, 1.0])
@pytest.mark.parametrize("width", [32, 256, 2048])
def test_rounding_stays_below_the_sequential_sum(width, mean):
    x_TI = (RNG.standard_normal((20, width)) + mean).astype(np.float32)
    w_OI = (RNG.standard_normal((30, width)) + mean).astype(np.float32)
    product = linear(
        x_TI.astype(np.float64), Piece(w_OI.astype(np.float64), np.zeros((30, width // 32)))
    )
    total_TO = np.zeros((20, 30), np.float32)
    for i in range(width):  # one after the other: the worst order
        total_TO += x_TI[:, i, None] * w_OI[None, :, i]
    expected_TO = RoundingNoise().product(product, None)
    assert 0.5 < ratio(total_TO - product.y_TO, expected_TO) < 1.8


def test_input_errors_pass_through_a_product():
    _, piece = int4_piece(64, 96)
    x_TI = RNG.standard_normal((1, 96))
    variance_TI = np.square(RNG.standard_normal((1, 96)))
    errors_NI = RNG.standard_normal((4000, 96)) * np.sqrt(variance_TI)
    spread_O = (errors_NI @ piece.values.T).var(0)
    own_TO = Int4Noise().product(linear(x_TI, piece), None)
    passed_TO = Int4Noise().product(linear(x_TI, piece), variance_TI) - own_TO
    assert np.allclose(passed_TO[0], spread_O, rtol=0.15)


def router_trace(logits_TE, bias_E, K):
    scores_TE = 1 / (1 + np.exp(-logits_TE))
    ids_TK = np.argsort(-(scores_TE + bias_E), axis=-1, kind="stable")[:, :K]
    chosen_TK = np.take_along_axis(scores_TE, ids_TK, axis=-1)
    weights_TK = chosen_TK / chosen_TK.sum(-1, keepdims=True) * 2.5
    product = Product(np.zeros((len(logits_TE), 1)), Piece(logits_TE, logits_TE), logits_TE)
    return RouterTrace(product, scores_TE, bias_E, ids_TK, weights_TK)


def test_routing_weights_err_as_expected():
    logits_TE, bias_E = RNG.standard_normal((1, 8)), np.zeros(8)
    variance_TE = RNG.uniform(0.5, 1, (1, 8))
    step = 1e-6
    up_EK, down_EK = (
        router_trace(logits_TE + sign * step * np.eye(8), bias_E, 3).topk_weights_TK
        for sign in (1, -1)
    )
    slope_EK = (up_EK - down_EK) / (2 * step)
    found_TK = weight_variance(router_trace(logits_TE, bias_E, 3), variance_TE)
    assert np.allclose(found_TK, variance_TE @ np.square(slope_EK), rtol=1e-6)


def test_only_near_ties_may_change_experts():
    logits_TE = np.array([[2.0, 1.0, 1.0 - 1e-7, -1.0], [2.0, 1.0, 0.5, -1.0]])
    trace = router_trace(logits_TE, np.zeros(4), 2)
    assert near_ties(trace, np.full((2, 4), 1e-14)).tolist() == [True, False]
    assert near_ties(router_trace(logits_TE, np.zeros(4), 4), np.ones((2, 4))).tolist() == [
        False,
        False,
    ]


@given(st.floats(-7, 7), st.floats(0, 4), st.floats(0, 4))
def test_turning_a_pair_keeps_its_total_variance(angle, even, odd):
    turned = turned_variance(np.array([[[even, odd]]]), np.array([[np.exp(1j * angle)]]))
    assert np.isclose(turned.sum(), even + odd)
    assert (turned >= 0).all()


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.floats(1e-6, 1e6))
def test_a_comparison_does_not_depend_on_the_unit(seed, unit):
    rng = np.random.default_rng(seed)
    left, right, reference = rng.standard_normal((3, 4, 5))
    bounds = LayerBounds({("rounding", "x"): np.full(4, 0.5)}, None)
    scaled = LayerBounds({("rounding", "x"): np.full(4, 0.5 * unit**2)}, None)
    one = compare_tensor(0, "x", (left, right, reference), "rounding", bounds)
    other = compare_tensor(
        0, "x", (left * unit, right * unit, reference * unit), "rounding", scaled
    )
    assert np.isclose(one.measured, other.measured)
    assert np.isclose(one.ratio, other.ratio)


def test_nan_is_beyond_every_bound():
    values = (np.full((2, 2), np.nan), np.ones((2, 2)), np.ones((2, 2)))
    bounds = LayerBounds({("rounding", "x"): np.full(2, 1e9)}, None)
    assert not compare_tensor(0, "x", values, "rounding", bounds).passed
