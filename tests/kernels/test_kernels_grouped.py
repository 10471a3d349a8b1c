"""Grouped products and whole experts against float64, on every instruction set of this CPU."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kernels.kernel_support import (
    EPS,
    LOADS,
    exact_layer,
    expect_within,
    grouped,
    grouped_outer,
    normal,
    rows_of,
)
from mobilemoe.errors import MobileMoEError
from mobilemoe.kernels import (
    _training,
    grouped_linear,
    native_kernels,
    runs_native,
    swiglu_experts,
)

SHAPES = [(32, 32), (128, 64), (7, 3), (33, 97), (1, 1), (96, 160), (300, 50), (520, 65)]
kernels = pytest.mark.parametrize("kernel", native_kernels())
loads = pytest.mark.parametrize("counts", LOADS.values(), ids=LOADS)


def product(x: Tensor, counts, w: Tensor, transposed: bool, threads: int, kernel: str) -> Tensor:
    y = torch.full((len(x), w.shape[1 if transposed else 2]), torch.nan)
    _training.grouped_product(x, counts, w, transposed, y, threads, kernel)
    return y


def outer(x: Tensor, counts, y: Tensor, threads: int, kernel: str) -> Tensor:
    w = torch.full((len(counts), x.shape[1], y.shape[1]), torch.nan)
    _training.grouped_outer(x, counts, y, w, threads, kernel)
    return w


def run_layer(x, counts, gate_up, down, grad_y, threads=1, kernel="auto") -> dict[str, Tensor]:
    """Return y and all gradients from one native forward and backward."""
    h = torch.full((len(x), gate_up.shape[2]), torch.nan)
    y, grads = (
        torch.full_like(x, torch.nan),
        [torch.full_like(t, torch.nan) for t in (x, gate_up, down)],
    )
    _training.experts_forward(x, counts, gate_up, down, h, y, threads, kernel)
    _training.experts_backward(x, counts, gate_up, down, h, grad_y, *grads, threads, kernel)
    return {"y": y, "x": grads[0], "gate_up": grads[1], "down": grads[2]}


def layer_of(counts, D: int, F: int, seed: int = 0) -> tuple:
    E, N = len(counts), sum(counts)
    gate_up = normal(E, D, 2 * F, seed=seed + 1, scale=D**-0.5)
    down = normal(E, F, D, seed=seed + 2, scale=F**-0.5)
    return normal(N, D, seed=seed), counts, gate_up, down, normal(N, D, seed=seed + 3)


@kernels
@loads
@pytest.mark.parametrize("shape", SHAPES)
def test_products_are_within_the_rounding_of_their_sums(kernel, counts, shape):
    I, O = shape  # noqa: E741
    x, w = normal(sum(counts), I), normal(len(counts), I, O, seed=1)
    exact = grouped(x.double(), counts, w.double())
    bound = (I + 2) * EPS * grouped(x.double().abs(), counts, w.double().abs())
    expect_within(product(x, counts, w, False, 2, kernel), exact, bound)
    turned = w.mT.contiguous()
    expect_within(product(x, counts, turned, True, 2, kernel), exact, bound, "transposed")


@kernels
@loads
@pytest.mark.parametrize("shape", SHAPES)
def test_weight_gradients_are_within_the_rounding_of_their_sums(kernel, counts, shape):
    x, y = normal(sum(counts), shape[0]), normal(sum(counts), shape[1], seed=1)
    exact = grouped_outer(x.double(), counts, y.double())
    bound = (max(counts) + 2) * EPS * grouped_outer(x.double().abs(), counts, y.double().abs())
    expect_within(outer(x, counts, y, 2, kernel), exact, bound)


@kernels
@loads
@pytest.mark.parametrize("sizes", [(128, 64), (32, 32), (40, 24), (5, 3), (96, 160), (288, 132)])
def test_experts_are_within_the_rounding_of_every_step(kernel, counts, sizes):
    layer = layer_of(counts, *sizes)
    actual, exact = run_layer(*layer, threads=2, kernel=kernel), exact_layer(*layer)
    for name, values in actual.items():
        expect_within(values, exact.values[name], exact.bounds[name], name)


@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.integers(0, 70), min_size=1, max_size=6).map(tuple),
    sizes=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    threads=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_experts_of_any_size_equal_the_formula(counts, sizes, threads, seed):
    layer = layer_of(counts, *sizes, seed=seed)
    actual, exact = run_layer(*layer, threads=threads), exact_layer(*layer)
    for name, values in actual.items():
        expect_within(values, exact.values[name], exact.bounds[name], name)


@kernels
def test_bits_do_not_depend_on_the_number_of_threads(kernel):
    layer = layer_of((3, 900, 0, 31, 256, 1, 40), 96, 48)
    one = run_layer(*layer, threads=1, kernel=kernel)
    for threads in (2, 3, 4):
        again = run_layer(*layer, threads=threads, kernel=kernel)
        for name, values in one.items():
            assert torch.equal(values, again[name]), (name, threads)


@kernels
def test_bits_of_an_expert_do_not_depend_on_the_others(kernel):
    counts = (3, 90, 0, 31, 300)
    x, _, gate_up, down, grad_y = layer_of(counts, 64, 32)
    together = run_layer(x, counts, gate_up, down, grad_y, kernel=kernel)
    for e, rows in enumerate(rows_of(counts)):
        arguments = x[rows], (counts[e],), gate_up[e : e + 1], down[e : e + 1], grad_y[rows]
        alone = run_layer(*arguments, kernel=kernel)
        assert torch.equal(alone["y"], together["y"][rows])
        assert torch.equal(alone["x"], together["x"][rows])
        assert torch.equal(alone["gate_up"][0], together["gate_up"][e])
        assert torch.equal(alone["down"][0], together["down"][e])


@kernels
def test_long_sums_are_cut_into_blocks(kernel):
    """One running float32 sum of 65,536 tenths is off by 20 times this bound."""
    rows, tenth = 65_536, torch.tensor(0.1)
    w = outer(tenth.expand(rows, 1).contiguous(), (rows,), torch.ones(rows, 1), 1, kernel)
    exact = rows * tenth.double()
    assert abs(float(w) - float(exact)) <= (256 + rows / 256 + 2) * EPS * exact


@kernels
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_bad_number_spoils_its_own_row_only(kernel, bad):
    layer = layer_of((9, 4), 32, 32)
    clean = run_layer(*layer, kernel=kernel)
    layer[0][5, 7] = bad
    spoilt = run_layer(*layer, kernel=kernel)
    others = torch.arange(13) != 5
    assert not torch.isfinite(spoilt["y"][5]).any()
    assert torch.equal(spoilt["y"][others], clean["y"][others])
    assert torch.equal(spoilt["gate_up"][1], clean["gate_up"][1])
    assert not torch.isfinite(spoilt["gate_up"][0]).all()


def test_autograd_gives_the_same_as_the_formula():
    layer = layer_of(LOADS["uneven"], 64, 32)
    x, counts, gate_up, down, grad_y = layer
    leaves = [t.requires_grad_() for t in (x, gate_up, down)]
    whole = torch.autograd.grad(swiglu_experts(x, counts, gate_up, down), leaves, grad_y)
    gate, up = grouped_linear(x, counts, gate_up).chunk(2, -1)
    y = grouped_linear(torch.nn.functional.silu(gate) * up, counts, down)
    parts = torch.autograd.grad(y, leaves, grad_y)
    exact = exact_layer(*(t.detach() if isinstance(t, Tensor) else t for t in layer))
    for gradients in (whole, parts):
        for name, values in zip(("x", "gate_up", "down"), gradients, strict=True):
            expect_within(values, exact.values[name], exact.bounds[name], name)


def test_inputs_may_have_any_strides():
    counts = (3, 0, 6)
    x, _, gate_up, down, _ = layer_of(counts, 40, 24)
    expected = swiglu_experts(x, counts, gate_up, down)
    odd = [t.mT.contiguous().mT.requires_grad_() for t in (x, gate_up, down)]
    assert not any(t.is_contiguous() for t in odd)
    y = swiglu_experts(odd[0], counts, *odd[1:])
    assert torch.equal(y, expected)
    y.sum().backward()  # an expanded gradient: all its strides are 0
    assert all(torch.isfinite(t.grad).all() for t in odd)
    assert torch.equal(grouped_linear(odd[0], counts, odd[1]), grouped_linear(x, counts, gate_up))


def test_only_wanted_gradients_are_computed():
    x, w = normal(4, 8).requires_grad_(), normal(2, 8, 3)
    grouped_linear(x, (1, 3), w).sum().backward()
    assert x.grad is not None and w.grad is None


def test_a_second_derivative_is_refused():
    layer = layer_of((2, 3), 8, 4)
    leaves = [t.requires_grad_() for t in (layer[0], layer[2], layer[3])]
    y = swiglu_experts(*layer[:4])
    with pytest.raises(MobileMoEError, match="second derivative"):
        torch.autograd.grad(y.sum(), leaves[:1], create_graph=True)


@pytest.mark.parametrize("name", ["x", "gate_up", "down"])
def test_another_type_is_refused_by_name(name):
    tensors = dict(
        zip(("x", "gate_up", "down"), (normal(3, 8), normal(1, 8, 8), normal(1, 4, 8)), strict=True)
    )
    tensors[name] = tensors[name].double()
    assert not runs_native(*tensors.values())
    with pytest.raises(
        MobileMoEError, match=f"{name} is torch.float64 on cpu; allowed: torch.float32"
    ):
        swiglu_experts(tensors["x"], (3,), tensors["gate_up"], tensors["down"])


def test_autocast_is_left_to_pytorch():
    x = normal(2, 2)
    assert runs_native(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert not runs_native(x)


@pytest.mark.parametrize("counts", [(1, 1), (3,), (2, 2), (-1, 4), (1, 1, 1)])
def test_counts_that_do_not_fit_are_refused(counts):
    with pytest.raises(ValueError, match="counts must"):
        grouped_linear(normal(3, 4), counts, normal(2, 4, 5))


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="shapes"):
        grouped_linear(normal(3, 4), (3, 0), normal(2, 5, 4))
    with pytest.raises(ValueError, match="shapes"):
        swiglu_experts(normal(3, 4), (3, 0), normal(2, 4, 6), normal(2, 4, 4))
    with pytest.raises(ValueError, match="shapes"):
        grouped_linear(normal(3, 0), (3,), normal(1, 0, 4))


def test_unknown_kernels_and_thread_numbers_are_refused():
    x, w = normal(3, 4), normal(1, 4, 4)
    with pytest.raises(ValueError, match="kernel is 'sse9'; allowed here: auto"):
        product(x, (3,), w, False, 1, "sse9")
    for threads in (0, 1025):
        with pytest.raises(ValueError, match="threads must be 1 to 1024"):
            product(x, (3,), w, False, threads, "auto")
