"""Int8 activations: the engine's integers and scales, the gradient of the identity.

T tokens, d head dim.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mobilemoe.engine._native import testing
from mobilemoe.engine.selftest import runnable_kernels
from mobilemoe.quant.activations import block_scales, fake_int8, int8_values, quantize_activations

FLOATS = st.floats(width=32, allow_nan=True, allow_infinity=True)
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
EVEN_FIRST = np.concatenate([np.arange(0, 32, 2), np.arange(1, 32, 2)])
EPS = 2.0**-24

KERNELS = runnable_kernels()
kernels = pytest.mark.parametrize("kernel", KERNELS)


def engine_parts(x_I, kernel):
    """Return the engine's integers [I] in their natural order, scales and what they leave."""
    stored, scales, _, rest_I = testing.quantize(x_I, kernel, with_rest=True)
    integers = np.empty((len(scales), 32), np.int8)
    integers[:, EVEN_FIRST] = stored.reshape(-1, 32)
    return integers.ravel(), scales, rest_I


def activations(seed, *shape):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape) * np.exp(3 * rng.standard_normal((*shape[:-1], 1)))
    return torch.from_numpy(x.astype(np.float32))


@settings(max_examples=100, deadline=None)
@given(hnp.arrays(np.float32, 64, elements=FLOATS), st.sampled_from([1.0, 1e-30, 3e-38, 0.0]))
def test_integers_and_scales_are_the_engine_s(values, factor):
    with np.errstate(all="ignore"):
        x_I = values * np.float32(factor)
    integers, scales = quantize_activations(torch.from_numpy(x_I))
    for kernel in KERNELS:
        expected, expected_scales, _ = engine_parts(x_I, kernel)
        assert np.array_equal(integers.numpy(), expected), kernel
        assert np.array_equal(scales.numpy(), expected_scales, equal_nan=True), kernel


@kernels
def test_many_rows_are_the_engine_s_too(kernel):
    x_TI = activations(1, 300, 128)
    integers_TI, scales_TB = quantize_activations(x_TI)
    for t, x_I in enumerate(x_TI.numpy()):
        expected, expected_scales, _ = engine_parts(x_I, kernel)
        assert np.array_equal(integers_TI[t].numpy(), expected), t
        assert scales_TB[t].numpy().tobytes() == expected_scales.tobytes(), t


@kernels
def test_what_is_rounded_is_the_engine_s(kernel):
    """The activations over their scales, to the last bit: the routed experts fold these."""
    x_TI = activations(8, 300, 128)
    scale_TB1, inverse_TB1 = block_scales(x_TI.unflatten(-1, (-1, 32)))
    values_TI = (x_TI.unflatten(-1, (-1, 32)) * inverse_TB1).flatten(1)
    for x_I, values_I, scale_B1 in zip(x_TI, values_TI, scale_TB1, strict=True):
        expected_I, expected_B = testing.scale_row(x_I.numpy(), kernel)
        assert values_I.numpy().tobytes() == expected_I.tobytes()
        assert scale_B1.numpy().tobytes() == expected_B.tobytes()


@kernels
def test_two_terms_are_the_engine_s_two_rows(kernel):
    x_TI = activations(2, 50, 96)
    for x_I, one_I, two_I in zip(x_TI, int8_values(x_TI), int8_values(x_TI, 2), strict=True):
        first, first_scales, rest_I = engine_parts(x_I.numpy(), kernel)
        second, second_scales, _ = engine_parts(rest_I, kernel)
        first_I = first.astype(np.float32) * np.repeat(first_scales, 32)
        second_I = second.astype(np.float32) * np.repeat(second_scales, 32)
        assert np.array_equal(one_I.numpy(), first_I)
        assert np.array_equal(two_I.numpy(), first_I + second_I)


@pytest.mark.parametrize("d", [16, 64, 512])
def test_cached_values_are_the_engine_s(d):
    """One query over one position gives back what the cache holds, up to three roundings."""
    x_Td = activations(3, 40, d).numpy()
    ones, zeros = np.ones((1, d), np.int8), np.zeros((1, d), np.int8)
    fake_Td = int8_values(torch.from_numpy(x_Td), block=d).numpy()
    for x_d, fake_d in zip(x_Td, fake_Td, strict=True):
        queries = (ones, zeros, np.ones(1, np.float32), np.ones(1, np.int64))
        held_d = testing.attend_int8(x_d[None], x_d[None], *queries, "portable")[0]
        assert (np.abs(held_d - fake_d) <= 4 * EPS * np.abs(fake_d)).all()


@settings(max_examples=100, deadline=None)
@given(hnp.arrays(np.float32, 32, elements=FINITE))
def test_nothing_is_ever_clamped(x_I):
    integers, scales = quantize_activations(torch.from_numpy(x_I))
    if scales[0] > 0:
        assert integers.abs().max() == 127
        assert integers[np.abs(x_I).argmax()].abs() == 127


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_block_that_is_not_finite_stays_so_and_alone(bad):
    x_I = activations(4, 96).clone()
    clean_I = int8_values(x_I, 2)
    x_I[40] = bad
    values_I = int8_values(x_I, 2)
    assert values_I[32:64].isnan().all()
    kept = [*range(32), *range(64, 96)]
    assert torch.equal(values_I[kept], clean_I[kept])


@pytest.mark.parametrize("terms", [1, 2])
def test_the_gradient_passes_straight_through(terms):
    x_TI = activations(5, 7, 64).requires_grad_()
    upstream_TI = activations(6, 7, 64)
    values_TI = fake_int8(x_TI, terms)
    assert torch.equal(values_TI, int8_values(x_TI, terms))
    assert not torch.equal(values_TI, x_TI)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(saved.append, lambda x: x):
        fake_int8(x_TI, terms)
    assert saved == []
    values_TI.backward(upstream_TI)
    assert torch.equal(x_TI.grad, upstream_TI)


def test_half_precision_stays_so():
    x_TI = activations(7, 3, 32).bfloat16()
    values_TI = fake_int8(x_TI)
    assert values_TI.dtype == torch.bfloat16
    assert torch.equal(values_TI, int8_values(x_TI.float()).bfloat16())
