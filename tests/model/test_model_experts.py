"""What computes `experts` for which types: all ways against the loop in float64."""

from __future__ import annotations

import pytest
import torch
from model_support import normal

from mobilemoe.model import experts
from mobilemoe.model.experts import experts_grouped_mm, experts_loop

COUNTS = (5, 0, 1, 12)
BF16 = 2.0**-8  # a bfloat16 is off by half of it


def weights(D: int = 16, F: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    E = len(COUNTS)
    return normal(E, D, 2 * F, seed=1) * D**-0.5, normal(E, F, D, seed=2) * F**-0.5


def gradients(compute, dtype, D=16, F=8):
    """Return y and all gradients of one way, in float64."""
    leaves = [t.to(dtype).requires_grad_() for t in (normal(sum(COUNTS), D), *weights(D, F))]
    y = compute(leaves[0], COUNTS, *leaves[1:])
    upstream = normal(sum(COUNTS), D, seed=3).to(y.dtype)
    return y.dtype, [t.detach().double() for t in (y, *torch.autograd.grad(y, leaves, upstream))]


@pytest.mark.parametrize(
    ("dtype", "sizes", "limit"),
    [
        (torch.float64, (16, 8), 1e-12),
        (torch.float32, (16, 8), 1e-5),
        (torch.float32, (9, 5), 1e-5),
        (torch.bfloat16, (16, 8), 12 * BF16),
        (torch.bfloat16, (12, 6), 12 * BF16),  # which grouped_mm refuses
        (torch.float16, (16, 8), 2e-2),
    ],
)
def test_every_type_is_computed(dtype, sizes, limit):
    kind, actual = gradients(experts, dtype, *sizes)
    assert kind == dtype
    _, expected = gradients(experts_loop, torch.float64, *sizes)
    for values, exact in zip(actual, expected, strict=True):
        assert float((values - exact).abs().max()) <= limit * max(1, float(exact.abs().max()))


def test_all_ways_agree_in_float32():
    _, expected = gradients(experts_loop, torch.float32)
    for way in (experts, experts_grouped_mm):
        for values, exact in zip(gradients(way, torch.float32)[1], expected, strict=True):
            torch.testing.assert_close(values, exact, rtol=1e-5, atol=1e-5)


def test_autocast_computes_in_its_type():
    leaves = [t.requires_grad_() for t in (normal(sum(COUNTS), 16), *weights())]
    with torch.autocast("cpu", torch.bfloat16):
        y = experts(leaves[0], COUNTS, *leaves[1:])
    assert y.dtype == torch.bfloat16
    y.sum().backward()  # a gradient without strides
    assert all(t.grad.dtype == torch.float32 for t in leaves)
    exact = experts_loop(leaves[0].double(), COUNTS, *(t.double() for t in leaves[1:]))
    assert float((y.double() - exact).abs().max()) <= 12 * BF16 * float(exact.abs().max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("rows", [0, 1])
def test_hardly_any_rows(dtype, rows):
    leaves = [t.to(dtype).requires_grad_() for t in (torch.ones(rows, 16), *weights())]
    y = experts(leaves[0], (0, rows, 0, 0), *leaves[1:])
    assert y.shape == (rows, 16)
    y.sum().backward()
    used = [[bool(w.any()) for w in t.grad] for t in leaves[1:]]
    assert used == [[False, rows > 0, False, False]] * 2
