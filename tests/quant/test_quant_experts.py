"""The routed experts in int8: the engine's integers, the gradients of the plain product.

N rows, I inputs, O outputs, E experts, D hidden, F routed expert width, G groups.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mobilemoe.engine._native import testing
from mobilemoe.engine.selftest import runnable_kernels
from mobilemoe.model import experts
from mobilemoe.quant import dequantize, pack, quantize
from mobilemoe.quant.experts import fold_weights, folded_integers, folded_product, int8_experts

EPS = 2.0**-24
COUNTS = (5, 0, 40, 3)  # one expert has no rows

kernels = pytest.mark.parametrize("kernel", runnable_kernels())


class Weights:
    """Random INT4 experts [E, I, O]: as stored, and as torch sees them."""

    def __init__(self, inputs, outputs, seed=0):
        rng = np.random.default_rng(seed)
        shape = (len(COUNTS), inputs, outputs)
        floats = rng.standard_normal(shape) * np.exp(rng.standard_normal((*shape[:2], 1)))
        self.integers, self.scales = quantize((0.1 * floats).astype(np.float32))
        self.values_EIO = torch.from_numpy(dequantize(self.integers, self.scales))
        self.scales_EIG = torch.from_numpy(self.scales.astype(np.float32))


def rows(width, seed=1):
    rng = np.random.default_rng(seed)
    x_NI = rng.standard_normal((sum(COUNTS), width))
    return torch.from_numpy((x_NI * np.exp(rng.standard_normal((len(x_NI), 1)))).astype(np.float32))


def folded(weights, x_NI):
    return folded_product(x_NI, COUNTS, weights.values_EIO, weights.scales_EIG)


def test_the_integers_follow_the_formula_and_ties_go_to_even():
    rng = np.random.default_rng(2)
    a_nI = rng.uniform(-127, 127, (200, 64)).astype(np.float32)
    scales_IG = rng.uniform(0.001, 0.1, (64, 3)).astype(np.float16).astype(np.float32)
    scales_IG[:2, 0] = [0.125, 0.0625]
    a_nI[0, :2] = [127, 33]
    weights = fold_weights(torch.zeros(1, 64, 96), torch.from_numpy(scales_IG)[None])
    b_GnI = folded_integers(torch.from_numpy(a_nI).double(), weights.ratios_EGI[0]).numpy()
    for g in range(3):
        for block in range(2):
            at = slice(32 * block, 32 * block + 32)
            largest = scales_IG[at, g].max()
            ratios_i = scales_IG[at, g] * (np.float32(1) / largest)
            expected = np.rint(a_nI[:, at].astype(np.float64) * ratios_i.astype(np.float64))
            assert np.array_equal(b_GnI[g, :, at], expected)


def test_a_product_that_float32_would_round_to_a_half_is_not_rounded_first():
    rng = np.random.default_rng(3)
    a_N = rng.uniform(0, 127, 2_000_000).astype(np.float32)
    r_N = rng.uniform(0, 1, 2_000_000).astype(np.float32)
    exact_N = np.rint(a_N.astype(np.float64) * r_N.astype(np.float64))
    (wrong,) = np.nonzero(np.rint(a_N * r_N) != exact_N)
    assert len(wrong)  # so that the case is met at all
    for at in wrong:
        b = folded_integers(torch.tensor([[float(a_N[at])]]).double(), torch.tensor([[r_N[at]]]))
        assert float(b) == exact_N[at]


@kernels
@pytest.mark.parametrize("shape", [(32, 32), (64, 96), (128, 64)])
def test_products_are_the_engine_s_to_the_rounding_of_their_sums(kernel, shape):
    """One integer that differs by one moves an output by a step: far beyond the bound."""
    weights, x_NI = Weights(*shape), rows(shape[0])
    y_NO = folded(weights, x_NI).numpy()
    start = 0
    for e, count in enumerate(COUNTS):
        if not count:
            continue
        stored = pack(weights.integers[e]), weights.scales[e].view(np.uint16)
        x_nI = x_NI[start : start + count].numpy()
        expected_nO = testing.expert(*stored, x_nI, True, kernel)
        # |b| <= 127 and |q| <= 8 times the steps: blocks of 32 are exact integers in the engine.
        step_nB = np.abs(x_nI).reshape(count, -1, 32).max(-1) / 127
        largest_BG = weights.scales[e].astype(np.float64).reshape(-1, 32, shape[1] // 32).max(1)
        size_nG = step_nB.astype(np.float64) @ largest_BG * 32 * 127 * 8
        bound_nO = np.repeat((shape[0] + 4) * EPS * size_nG, 32, axis=1)
        assert (np.abs(y_NO[start : start + count] - expected_nO) <= bound_nO).all()
        start += count


def test_the_folded_step_is_coarser_than_that_of_the_plain_activation():
    """What would be lost by simulating the experts with plain int8 activations."""
    weights, x_NI = Weights(128, 64), rows(128)
    stored = pack(weights.integers[2]), weights.scales[2].view(np.uint16)
    x_nI = x_NI[5:45]
    engine_nO = torch.from_numpy(testing.expert(*stored, x_nI.numpy(), True, "portable"))
    exact_nO = x_nI @ weights.values_EIO[2]
    ours = torch.dist(folded(weights, x_NI)[5:45], engine_nO)
    assert ours < 1e-4 * torch.dist(exact_nO, engine_nO)


def test_gradients_are_those_of_the_plain_product():
    weights, x_NI = Weights(64, 96), rows(64).requires_grad_()
    w_EIO = weights.values_EIO.requires_grad_()
    upstream_NO = rows(96, seed=3)
    plain_NO = torch.cat([x_nI @ w for x_nI, w in zip(x_NI.split(COUNTS), w_EIO, strict=True)])
    expected = torch.autograd.grad(plain_NO, (x_NI, w_EIO), upstream_NO)
    actual = torch.autograd.grad(folded(weights, x_NI), (x_NI, w_EIO), upstream_NO)
    for got, wanted in zip(actual, expected, strict=True):
        assert torch.allclose(got, wanted, rtol=1e-6, atol=1e-6)
    assert (actual[1][1] == 0).all()  # the expert without rows


def test_zero_scales_and_zero_rows_give_zeros():
    weights, x_NI = Weights(64, 64), rows(64)
    weights.values_EIO[0], weights.scales_EIG[0] = 0, 0
    x_NI[7] = 0
    y_NO = folded(weights, x_NI)
    assert (y_NO[:5] == 0).all() and (y_NO[7] == 0).all()
    assert y_NO[8].abs().sum() > 0


def test_a_row_that_is_not_finite_stays_so_and_alone():
    weights, x_NI = Weights(64, 64), rows(64)
    clean_NO = folded(weights, x_NI)
    x_NI[9, 3] = torch.inf
    y_NO = folded(weights, x_NI)
    assert y_NO[9].isnan().all()
    others = [n for n in range(len(x_NI)) if n != 9]
    assert torch.equal(y_NO[others], clean_NO[others])


def test_the_experts_are_those_of_the_model_up_to_int8():
    gate_up, down, x_ND = Weights(64, 64), Weights(32, 64, seed=4), rows(64)
    plain_ND = experts(x_ND, COUNTS, gate_up.values_EIO, down.values_EIO)
    int8_ND = int8_experts(
        x_ND,
        COUNTS,
        gate_up.values_EIO,
        down.values_EIO,
        gate_up.scales_EIG,
        down.scales_EIG,
    )
    assert 1e-4 < torch.dist(int8_ND, plain_ND) / plain_ND.norm() < 0.1


def test_autocast_does_not_reach_the_integers():
    weights, x_NI = Weights(64, 64), rows(64)
    with torch.autocast("cpu", torch.bfloat16):
        y_NO = folded(weights, x_NI)
    assert torch.equal(y_NO, folded(weights, x_NI))
