"""The scaling law against the values that the paper's coefficients give (arXiv 2605.27358)."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilemoe import MobileMoEError
from mobilemoe.plan import effective_experts, published_law

LAW = published_law()


@pytest.mark.parametrize(
    ("billion_params", "billion_tokens", "experts", "loss"),
    [
        (0.3, 100, 1, 2.4461),
        (0.3, 100, 8, 2.3795),
        (0.3, 500, 8, 2.3458),
        (0.9, 300, 8, 2.2759),
        (0.9, 500, 32, 2.2885),
    ],
)
def test_loss_at_published_points(
    billion_params: float, billion_tokens: float, experts: int, loss: float
) -> None:
    predicted = LAW.loss(
        active_params=billion_params * 1e9, tokens=billion_tokens * 1e9, num_experts=experts
    )
    assert round(predicted, 4) == loss


def test_mean_over_the_sweep_per_expert_count() -> None:
    means = [round(LAW.mean_loss(experts), 4) for experts in LAW.expert_grid]
    assert means == [2.3665, 2.3320, 2.3199, 2.3190, 2.3230, 2.3282]


def test_the_sweep_prefers_eight_experts() -> None:
    assert LAW.best_num_experts() == 8
    assert LAW.best_num_experts([1, 2, 4]) == 4
    assert LAW.best_num_experts([16, 32]) == 16


@pytest.mark.parametrize(
    ("experts", "effective"),
    [(1, 1.0), (2, 1.911), (4, 3.581), (8, 6.421), (16, 10.681), (32, 16.008)],
)
def test_effective_experts(experts: int, effective: float) -> None:
    assert round(effective_experts(experts), 3) == effective


@given(st.floats(1, 1e6), st.floats(1e-3, 1e3))
def test_effective_experts_grows_and_saturates(experts: float, more: float) -> None:
    assert effective_experts(experts) <= effective_experts(experts + more) <= 32


@given(
    st.floats(0.3e9, 0.9e9),
    st.floats(0.3e9, 0.9e9),
    st.floats(100e9, 500e9),
    st.sampled_from(LAW.expert_grid),
)
def test_more_active_params_never_hurt(one: float, other: float, tokens: float, e: int) -> None:
    small, large = sorted((one, other))
    worse = LAW.loss(active_params=small, tokens=tokens, num_experts=e)
    better = LAW.loss(active_params=large, tokens=tokens, num_experts=e)
    assert better <= worse


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("active_params", 0.29e9),
        ("active_params", 0.91e9),
        ("tokens", 99e9),
        ("tokens", 6e12),
        ("num_experts", 33),
    ],
)
def test_outside_the_sweep_is_refused_unless_asked(field: str, value: float) -> None:
    point: dict[str, float] = {"active_params": 0.5e9, "tokens": 300e9, "num_experts": 8}
    point[field] = value
    with pytest.raises(ValueError, match=f"{field} is .*fitted range"):
        LAW.loss(**point)
    assert 1.9 < LAW.loss(**point, extrapolate=True) < 3.0


@pytest.mark.parametrize("value", [0, -1, nan, inf])
@pytest.mark.parametrize("field", ["active_params", "tokens", "num_experts"])
def test_nonsense_is_refused_even_when_extrapolating(field: str, value: float) -> None:
    point: dict[str, float] = {"active_params": 0.5e9, "tokens": 300e9, "num_experts": 8}
    point[field] = value
    with pytest.raises(MobileMoEError, match=field):
        LAW.loss(**point, extrapolate=True)


def test_fewer_than_one_expert_is_refused() -> None:
    with pytest.raises(MobileMoEError, match="num_experts"):
        effective_experts(0.5)


def test_the_law_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        LAW.c = 0.0  # type: ignore[misc]
