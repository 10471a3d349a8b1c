"""What the planner asks of the law, and what it refuses to ask."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mobilemoe.plan import Constraints, plan, published_law
from mobilemoe.plan.family import Shape
from mobilemoe.plan.search import LossEstimate
from mobilemoe.plan.search.reach import estimate, training_tokens, unreachable

LAW = published_law()
ANY = Constraints(5_000_000_000)
M = Shape(1024, 26, 8)


def law_loss(active: float, tokens: float, experts: int = 8) -> float:
    return LAW.loss(active_params=active, tokens=tokens, num_experts=experts)


def test_inside_its_range_the_loss_is_the_laws() -> None:
    found = estimate(LAW, replace(ANY, tokens=300e9), M, 500_000_000)
    assert found == LossEstimate(law_loss(0.5e9, 300e9), (), 0.5e9, 300e9)


@pytest.mark.parametrize(
    ("active", "tokens", "asked", "outside"),
    [
        (272_469_936, 300e9, (0.3e9, 300e9), ("active_params",)),
        (921_685_120, 300e9, (0.9e9, 300e9), ("active_params",)),
        (500_000_000, 6e12, (0.5e9, 500e9), ("tokens",)),
        (921_685_120, 6e12, (0.9e9, 500e9), ("active_params", "tokens")),
    ],
)
def test_beside_its_range_it_is_asked_at_the_edge_and_marked(
    active: int, tokens: float, asked: tuple[float, float], outside: tuple[str, ...]
) -> None:
    found = estimate(LAW, replace(ANY, tokens=tokens), M, active)
    assert found == LossEstimate(law_loss(*asked), outside, *asked)


@pytest.mark.parametrize(
    ("active", "tokens", "experts", "names"),
    [
        (269_999_999, 300e9, 8, ("active_params",)),
        (990_000_001, 300e9, 8, ("active_params",)),
        (500_000_000, 99e9, 8, ("tokens",)),
        (500_000_000, 300e9, 64, ("num_experts",)),
        (1_500_000, 1e7, 8, ("active_params", "tokens")),
        (500_000_000, 6e12, 8, ()),
    ],
)
def test_farther_outside_there_is_no_loss(
    active: int, tokens: float, experts: int, names: tuple[str, ...]
) -> None:
    """Too few tokens are not clamped: at the edge a large model would look better than it is."""
    assert unreachable(LAW, active, tokens, experts) == names
    shape = replace(M, expert_equivalents=experts)
    found = estimate(LAW, replace(ANY, tokens=tokens), shape, active)
    assert (found is None) == bool(names)


def test_extrapolation_asks_at_the_very_point() -> None:
    asked = replace(ANY, tokens=6e12, extrapolate=True)
    found = estimate(LAW, asked, M, 200_000_000)
    expected = LAW.predict(active_params=0.2e9, tokens=6e12, num_experts=8).loss
    assert found == LossEstimate(expected, ("active_params", "tokens"), 0.2e9, 6e12, True)


@pytest.mark.parametrize(
    ("shape", "outside"),
    [
        (replace(M, granularity=16), ("granularity",)),
        (replace(M, shared_expert=False), ("shared_expert",)),
        (replace(M, expert_equivalents=1, granularity=16), ()),
    ],
)
def test_a_form_that_was_not_fitted_is_marked(shape: Shape, outside: tuple[str, ...]) -> None:
    found = estimate(LAW, replace(ANY, tokens=300e9), shape, 500_000_000)
    assert found is not None
    assert found.outside == outside


def test_a_training_budget_buys_tokens_at_six_flops_per_active_parameter() -> None:
    assert training_tokens(LAW, replace(ANY, train_flops=6e20), 500_000_000) == pytest.approx(2e11)
    assert training_tokens(LAW, replace(ANY, train_flops=6e20, tokens=1e9), 10**9) == 1e9
    assert training_tokens(LAW, ANY, 500_000_000) == 500e9


def test_a_training_budget_trades_size_for_tokens() -> None:
    """At 1e21 FLOPs .9 billion parameters see 185 billion tokens; .33 see the fitted most."""
    result = plan(replace(ANY, train_flops=1e21), with_sensitivity=False)
    chosen = result.chosen
    assert chosen.tokens == pytest.approx(1e21 / 6 / chosen.active_params)
    assert chosen.loss is not None
    best = min(c.loss.loss for c in result.front if c.loss)
    assert chosen.loss.loss - best < LAW.rmse


def test_a_budget_too_small_for_the_law_gives_no_loss_and_says_so() -> None:
    result = plan(replace(ANY, train_flops=1e19, flops_per_token=1_100_000_000))
    assert result.chosen.loss is None
    assert "the training budget gives it" in result.confidence[0]
    assert "too few, so no loss is predicted" in result.confidence[0]
    assert result.chosen.expert_equivalents == 8


def test_other_forms_are_looked_at_when_asked_and_the_published_one_preferred() -> None:
    asked = Constraints(
        5_000_000_000,
        flops_per_token=1_100_000_000,
        granularities=(8, 16),
        shared_expert=(True, False),
    )
    result = plan(asked, with_sensitivity=False)
    assert (result.chosen.shape.granularity, result.chosen.shape.shared_expert) == (8, True)
    fine = plan(replace(asked, granularities=(16,), shared_expert=(False,)), with_sensitivity=False)
    assert fine.chosen.loss is not None
    assert fine.chosen.loss.outside == ("granularity", "shared_expert")
    assert fine.chosen.config.num_local_experts == 128
    said = " ".join(fine.confidence)
    assert "granularity 8, this design has 16" in said
    assert "this design has none" in said
