"""Routing, combine, SwiGLU, norms and rotation against PyTorch's own operations in float64.

T tokens, E experts, K choices of a token, N computed choices, D row width.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kernels.kernel_support import EPS, expect_within, normal
from mobilemoe.kernels import (
    _training,
    choose_experts,
    combine_rows,
    gather_rows,
    rotate_heads,
    scaled_rms_norm,
    sort_by_expert,
    swiglu,
)
from mobilemoe.model.norm import rms_norm
from mobilemoe.model.rope import apply_rope

SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, float("nan"), float("inf"), float("-inf")]


@st.composite
def scores(draw):
    """Draw [T, E] of few values, so that ties are common, NaN and infinities among them."""
    E = draw(st.integers(1, 12))
    row = st.lists(st.sampled_from(SPECIAL), min_size=E, max_size=E)
    return torch.tensor(draw(st.lists(row, min_size=1, max_size=6))), draw(st.integers(1, E))


@settings(max_examples=200, deadline=None)
@given(scores())
def test_chosen_experts_are_those_of_a_stable_sort(drawn):
    scores_TE, k = drawn
    expected = scores_TE.sort(dim=-1, descending=True, stable=True).indices[:, :k]
    assert torch.equal(choose_experts(scores_TE, k), expected)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=0, max_size=60))
def test_choices_are_sorted_as_a_stable_sort_would(ids):
    ids_TK = torch.tensor(ids, dtype=torch.long).view(-1, 1)
    assert torch.equal(sort_by_expert(ids_TK, 7), ids_TK.flatten().argsort(stable=True))


def routed(T: int, K: int, dropped: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return (choices [N], slots [T, K]) of a random order without the last `dropped`."""
    order = torch.randperm(T * K, generator=torch.Generator().manual_seed(seed))
    choices_N = order[: T * K - dropped]
    slots_TK = torch.full((T * K,), -1)
    slots_TK[choices_N] = torch.arange(len(choices_N))
    return choices_N, slots_TK.view(T, K)


@pytest.mark.parametrize(("T", "K", "dropped"), [(1, 1, 0), (9, 4, 0), (33, 3, 20), (5, 2, 10)])
@pytest.mark.parametrize("D", [1, 16, 37, 128])
def test_gather_and_combine_are_sums_over_choices(T, K, dropped, D):
    choices_N, slots_TK = routed(T, K, dropped)
    h, weights, upstream = normal(T, D), normal(T, K, seed=1), normal(T, D, seed=2)
    spread = torch.zeros(len(choices_N), T * K).index_put(
        (torch.arange(len(choices_N)), choices_N), torch.tensor(1.0)
    )
    pick = spread.double() @ torch.eye(T).double().repeat_interleave(K, 0)  # [N, T]
    h64, w64 = h.double().requires_grad_(), weights.double().requires_grad_()
    y64 = pick.T @ ((spread.double() @ w64.flatten())[:, None] * (pick @ h64) ** 3)
    expected = torch.autograd.grad(y64, (h64, w64), upstream.double())
    leaves = h.requires_grad_(), weights.requires_grad_()
    x_ND = gather_rows(leaves[0], choices_N, slots_TK)
    assert torch.equal(x_ND, h[choices_N // K])
    y = combine_rows(x_ND**3, slots_TK, leaves[1])
    actual = torch.autograd.grad(y, leaves, upstream)
    # Cubes and their slopes are rounded 4 times, sums have K or D terms.
    scale = (h64.abs() ** 3).max() * (1 + w64.abs()).max() * (1 + upstream.abs().max())
    limit = (K + D + 8) * EPS * 3 * scale * max(K, D)
    for name, a, e in (("y", y, y64), ("h", actual[0], expected[0]), ("w", actual[1], expected[1])):
        expect_within(a.detach(), e.detach(), limit.detach().expand_as(e), name)
    assert torch.equal(actual[1][slots_TK < 0], torch.zeros(dropped))


def test_swiglu_and_its_gradient():
    gate, up = normal(50, 33, scale=4), normal(50, 33, seed=1)
    gate[0, :4] = torch.tensor([0.0, -200.0, 200.0, -88.0])
    wide = [t.double().requires_grad_() for t in (gate, up)]
    a64 = F.silu(wide[0]) * wide[1]
    upstream = normal(50, 33, seed=2)
    expected = torch.autograd.grad(a64, wide, upstream.double())
    leaves = gate.requires_grad_(), up.requires_grad_()
    a = swiglu(*leaves)
    actual = torch.autograd.grad(a, leaves, upstream)
    magnitude = (1 + wide[0].abs()) * (1 + wide[1].abs()) * (1 + upstream.abs())
    for values, exact in zip((a, *actual), (a64, *expected), strict=True):
        expect_within(values.detach(), exact.detach(), 16 * EPS * magnitude.detach())


@pytest.mark.parametrize("shape", [(1, 1), (3, 5, 16), (130, 128), (2, 65, 33), (0, 8)])
def test_norm_and_its_gradients(shape):
    D = shape[-1]
    x, weight, upstream = normal(*shape), 1 + 0.3 * normal(D, seed=1), normal(*shape, seed=2)
    wide = [t.double().requires_grad_() for t in (x, weight)]
    y64 = wide[0] * torch.rsqrt(wide[0].square().mean(-1, keepdim=True) + 1e-5) * wide[1]
    expected = torch.autograd.grad(y64, wide, upstream.double())
    leaves = x.requires_grad_(), weight.requires_grad_()
    y = scaled_rms_norm(*leaves, 1e-5)
    actual = torch.autograd.grad(y, leaves, upstream)
    rows = max(1, x.numel() // D)
    for values, exact, terms in (
        (y, y64, D),
        (actual[0], expected[0], D),
        (actual[1], expected[1], rows),
    ):
        largest = exact.detach().abs().max() if exact.numel() else torch.tensor(0.0)
        bound = (D + terms + 16) * EPS * (1 + largest) * 4
        expect_within(values.detach(), exact.detach(), bound.expand_as(exact))


@pytest.mark.parametrize("shape", [(1, 1, 1, 2), (2, 9, 3, 16), (1, 70, 2, 64), (3, 5, 1, 6)])
def test_heads_are_rotated_and_normalised(shape):
    B, T, H, d = shape
    x, upstream = normal(*shape), normal(B, H, T, d, seed=1)
    angle = 3 * normal(T, d // 2, seed=2).double()
    wide = x.double().requires_grad_()
    turned = apply_rope(wide.transpose(1, 2), angle.cos(), angle.sin())
    y64 = turned * torch.rsqrt(turned.square().mean(-1, keepdim=True) + 1e-5)
    (expected,) = torch.autograd.grad(y64, wide, upstream.double())
    x.requires_grad_()
    y = rotate_heads(x, angle.cos().float(), angle.sin().float(), 1e-5)
    (actual,) = torch.autograd.grad(y, x, upstream)
    for values, exact in ((y, y64), (actual, expected)):
        bound = (2 * d + 16) * EPS * (1 + exact.detach().abs().max())
        expect_within(values.detach(), exact.detach(), bound.expand_as(exact))


def test_the_models_own_formulas_are_the_same():
    """What other devices and types compute, in float32 here."""
    x = normal(4, 6, 2, 8)
    cos, sin = normal(6, 4, seed=1).cos(), normal(6, 4, seed=1).sin()
    expected = rms_norm(apply_rope(x.transpose(1, 2), cos, sin), 1e-6)
    torch.testing.assert_close(rotate_heads(x, cos, sin, 1e-6), expected, rtol=1e-5, atol=1e-6)


def test_bits_do_not_depend_on_the_number_of_threads():
    x, weight, grad = normal(333, 24), normal(24, seed=1), normal(333, 24, seed=2)
    results = []
    for threads in (1, 2, 3, 4):
        y, factors = torch.empty_like(x), torch.empty(333)
        grads = torch.empty_like(x), torch.empty(24)
        _training.rms_norm(x, weight, 1e-5, factors, y, threads)
        _training.rms_norm_gradient(x, weight, factors, grad, *grads, threads)
        results.append((y, *grads))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_indices_out_of_range_are_refused():
    with pytest.raises(ValueError, match="index is out of range"):
        sort_by_expert(torch.tensor([[0, 7]]), 7)
    for slot in (-2, 3):
        with pytest.raises(ValueError, match="index is out of range"):
            combine_rows(normal(3, 2), torch.tensor([[slot]]), torch.ones(1, 1))
    with pytest.raises(ValueError, match="shapes"):
        choose_experts(normal(2, 3), 4)
