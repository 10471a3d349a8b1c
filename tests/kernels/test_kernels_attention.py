"""Causal attention and the row functions under it, against float64, on every instruction set.

B batch, H query heads, G heads of keys and values, T tokens, d head dim, V vocabulary.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.kernel_support import EPS, expect_within, normal
from mobilemoe.errors import MobileMoEError
from mobilemoe.kernels import _training, causal_attention, cross_entropy_rows, native_kernels
from mobilemoe.model.attention import attend

kernels = pytest.mark.parametrize("kernel", native_kernels())
# Whole blocks of 64 queries, one more or less, several; widths that fill no vector.
VANISHED = 1e-32  # probabilities below e^-87 are 0, and so is what is made of them
SHAPES = [
    (1, 1, 1, 1, 1),
    (2, 4, 2, 64, 16),
    (1, 2, 1, 65, 33),
    (2, 6, 2, 63, 7),
    (1, 3, 3, 130, 64),
    (1, 2, 1, 257, 48),
]


def inputs(B: int, H: int, G: int, T: int, d: int, scale: float = 1.0) -> list[Tensor]:
    """Return q, k, v and the gradient [B, T, H, d] that comes in."""
    heads = [normal(B, n, T, d, seed=i, scale=scale) for i, n in enumerate((H, G, G))]
    return [*heads, normal(B, T, H, d, seed=3)]


def native(q, k, v, grad_o, threads: int, kernel: str) -> list[Tensor]:
    """Return o and the gradients of q, k and v."""
    B, H, T, d = q.shape
    o, sums = torch.full((B, T, H, d), torch.nan), torch.full((B, H, T), torch.nan)
    grads = [torch.full_like(t, torch.nan) for t in (q, k, v)]
    _training.attend(q, k, v, d**-0.5, o, sums, threads, kernel)
    _training.attend_gradient(q, k, v, d**-0.5, sums, grad_o, *grads, threads, kernel)
    return [o, *grads]


def exact(q, k, v, grad_o) -> tuple[list[Tensor], list[Tensor]]:
    """Return what `native` does in float64, and bounds of float32.

    A score is a sum of d products, off by e_s = (d + 8) EPS times the sum of their magnitudes.
    An error e_s of every score changes a probability by 2 e_s of it, and so does the sum over
    T of them; what follows are sums of up to R T products (R query heads share a key), each
    factor with its own error.
    """
    wide = [t.double().requires_grad_() for t in (q, k, v)]
    repeat, (T, d) = q.shape[1] // k.shape[1], q.shape[2:]
    kr, vr = (t.repeat_interleave(repeat, 1) for t in wide[1:])
    scores = wide[0] @ kr.mT * d**-0.5
    hidden = torch.ones(T, T, dtype=torch.bool).triu(1)
    p = scores.masked_fill(hidden, -torch.inf).softmax(-1)
    o = (p @ vr).transpose(1, 2)
    grads = torch.autograd.grad(o, wide, grad_o.double())
    with torch.no_grad():
        e_s = (d + 8) * EPS * (wide[0].abs() @ kr.abs().mT * d**-0.5).amax()
        e_p = 2 * e_s + (T + 24) * EPS  # of a probability, as a share of it
        g = grad_o.double().transpose(1, 2).abs()
        grad_p = g @ vr.abs().mT
        grad_s = p * (grad_p + (p * grad_p).sum(-1, keepdim=True))
        e_grad_s = (3 * e_p + (2 * d + T + 8) * EPS) * grad_s * d**-0.5
        rest = (repeat * T + 8) * EPS
        e_sum = e_grad_s + rest * grad_s * d**-0.5
        e_q = e_sum @ kr.abs()
        e_k = (e_sum.mT @ wide[0].abs()).unflatten(1, (-1, repeat)).sum(2)
        e_v = ((e_p + rest) * p.mT @ g).unflatten(1, (-1, repeat)).sum(2)
        e_o = ((e_p + rest) * p @ vr.abs()).transpose(1, 2)
    return [o.detach(), *grads], [e + VANISHED for e in (e_o, e_q, e_k, e_v)]


@kernels
@pytest.mark.parametrize("shape", SHAPES)
def test_attention_and_its_gradients(shape, kernel):
    given = inputs(*shape)
    actual = native(*given, threads=2, kernel=kernel)
    for name, a, e, bound in zip("oqkv", actual, *exact(*given), strict=True):
        expect_within(a, e, bound, name)


@kernels
def test_a_decided_softmax_stays_finite(kernel):
    given = inputs(1, 2, 1, 70, 8, scale=30)
    actual = native(*given, threads=1, kernel=kernel)
    for name, a, e, bound in zip("oqkv", actual, *exact(*given), strict=True):
        expect_within(a, e, bound, name)


@kernels
def test_bits_do_not_depend_on_the_number_of_threads(kernel):
    given = inputs(3, 4, 2, 100, 24)
    results = [native(*given, threads=threads, kernel=kernel) for threads in (1, 2, 3, 5)]
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_later_tokens_change_nothing():
    q, k, v, _ = inputs(1, 2, 1, 90, 16)
    before = causal_attention(q, k, v)
    for t in (q, k, v):
        t[:, :, 70:] = 1e3
    assert torch.equal(causal_attention(q, k, v)[:, :70], before[:, :70])


def test_the_model_computes_the_same_where_it_may_not_use_it():
    given = inputs(2, 4, 2, 70, 16)[:3]
    expected = attend(*(t.double() for t in given))
    assert attend(*given).shape == expected.shape
    torch.testing.assert_close(attend(*given).double(), expected, rtol=1e-5, atol=1e-6)


def test_gradients_reach_the_leaves_through_autograd():
    q, k, v, grad_o = inputs(1, 4, 2, 66, 8)
    expected, _ = exact(q, k, v, grad_o)
    leaves = [t.requires_grad_() for t in (q, k, v)]
    actual = torch.autograd.grad(causal_attention(*leaves), leaves, grad_o)
    for a, e in zip(actual, expected[1:], strict=True):
        torch.testing.assert_close(a.double(), e, rtol=1e-4, atol=1e-5)


def test_what_does_not_fit_is_refused():
    q, k, v, _ = inputs(1, 4, 2, 5, 8)
    with pytest.raises(ValueError, match="shapes"):
        causal_attention(q, k, v[:, :, :4])
    with pytest.raises(ValueError, match="shapes"):
        causal_attention(q[:, :3], k, v)
    with pytest.raises(MobileMoEError, match=r"k is torch\.float64 on cpu"):
        causal_attention(q, k.double(), v)


@kernels
@pytest.mark.parametrize("V", [1, 2, 7, 16, 33, 4096])
def test_cross_entropy_of_rows_and_its_gradient(V, kernel):
    logits, targets = normal(40, V, scale=6), torch.arange(40) % V
    wide = logits.double().requires_grad_()
    losses64 = F.cross_entropy(wide, targets, reduction="none")
    (expected,) = torch.autograd.grad(losses64.sum(), wide)
    losses = torch.full((40,), torch.nan)
    size = logits.abs().amax(-1)  # distances from the largest are rounded once
    _training.cross_entropy(logits, targets, losses, 2, kernel)
    bound = (V + 24) * EPS + 4 * EPS * size
    expect_within(losses, losses64.detach(), bound * (1 + losses64.detach().abs()), "loss")
    expect_within(logits, expected, (bound[:, None] * (1 + expected.abs())), "gradient")


def test_a_row_without_numbers_has_a_loss_without_one():
    logits = torch.tensor([[1.0, torch.nan, 0.0], [1.0, torch.inf, 0.0], [0.0, -torch.inf, 0.0]])
    losses = cross_entropy_rows(logits, torch.tensor([0, 0, 1]))
    assert torch.isnan(losses[:2]).all() and losses[2] == torch.inf


def test_targets_out_of_range_are_refused():
    for target in (-1, 4):
        with pytest.raises(ValueError, match="index is out of range"):
            cross_entropy_rows(normal(1, 4), torch.tensor([target]))
