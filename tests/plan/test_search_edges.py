"""Budgets at the edge of sense: too little training, numbers beyond use, a law without error."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mobilemoe.errors import MobileMoEError
from mobilemoe.plan import Constraints, plan, published_law
from mobilemoe.plan.device import decode_seconds, load_profile, prefill_seconds
from mobilemoe.plan.search import Plan

PHONE_SIZED = Constraints(3_000_000_000)


def planned(constraints: Constraints) -> Plan:
    return plan(constraints, with_sensitivity=False)


def reason(result: Plan, name: str) -> str:
    return next(reason.why for reason in result.reasons if reason.name == name)


@pytest.mark.parametrize("flops", [1e17, 1e18, 1e19])
def test_a_small_training_budget_gets_a_model_that_it_can_train(flops: float) -> None:
    """Every model has 20 tokens per active parameter or more, and a larger one has not."""
    result = planned(replace(PHONE_SIZED, train_flops=flops))
    chosen = result.chosen
    assert chosen.loss is None
    assert chosen.tokens >= 20 * chosen.active_params
    wider = [c for c in result.front if c.active_params > 1.6 * chosen.active_params]
    assert wider
    assert all(c.tokens < 20 * c.active_params for c in wider)
    assert any(step.step == "tokens" and "2203.15556" in step.rule for step in result.funnel)


def test_a_hopeless_training_budget_gets_the_smallest_model_and_a_warning() -> None:
    result = planned(replace(PHONE_SIZED, train_flops=1e10))
    assert result.chosen.active_params == min(c.active_params for c in result.front)
    assert any("per active parameter, where about 20" in note for note in result.notes)
    assert not any("e-09 billion" in text for text in (*result.notes, *result.confidence))


def test_few_tokens_as_asked_bound_the_model_too() -> None:
    chosen = planned(replace(PHONE_SIZED, tokens=1e9)).chosen
    assert 2e7 < chosen.active_params <= 5e7


@pytest.mark.parametrize("field", ["tokens", "train_flops"])
def test_more_than_numbers_can_hold_is_refused(field: str) -> None:
    with pytest.raises(MobileMoEError, match=f"{field} is 1e\\+299; allowed: .* at most"):
        replace(PHONE_SIZED, **{field: 1e299})  # type: ignore[arg-type]


def test_a_change_that_nobody_can_ask_for_is_left_out_of_the_sensitivity() -> None:
    """Twice the memory would not be a number that constraints allow."""
    changes = [s.change for s in plan(Constraints(2**63 - 1)).sensitivity]
    assert "half the memory" in changes
    assert "twice the memory" not in changes


def test_a_law_without_error_has_one_lowest_loss() -> None:
    result = plan(PHONE_SIZED, replace(published_law(), rmse=0.0), with_sensitivity=False)
    lowest = min(c.loss.loss for c in result.front if c.loss)
    assert result.chosen.loss is not None
    assert result.chosen.loss.loss == lowest
    assert any("E = 8 is lowest by more than the law's error" in s for s in result.confidence)


def test_an_expert_count_that_does_not_fit_is_not_called_worse() -> None:
    """In 300 MB only dense models reach the law; it would prefer E = 8 if there were room."""
    result = planned(Constraints(300_000_000))
    assert result.chosen.expert_equivalents == 1
    assert any("no shape with it" in sentence for sentence in result.confidence)
    assert not any("lower by more" in sentence for sentence in result.confidence)


@pytest.mark.parametrize("prefer", ["loss", "memory", "training"])
def test_the_width_is_never_said_to_have_the_lowest_loss(prefer: str) -> None:
    why = reason(planned(replace(PHONE_SIZED, prefer=prefer)), "hidden_size")  # type: ignore[arg-type]
    assert "within its error (0.0076) of the lowest" in why


def test_a_law_of_ones_own_gets_no_findings_of_the_paper_about_experts() -> None:
    own = replace(published_law(), source="own")
    result = plan(PHONE_SIZED, own, with_sensitivity=False)
    assert "arXiv" not in reason(result, "expert_equivalents")
    assert "arXiv" in reason(planned(PHONE_SIZED), "expert_equivalents")


def test_a_device_on_which_no_time_passes_is_refused() -> None:
    phone = load_profile("galaxy-s25")
    idle = replace(phone, weights={"int4": {}}, attention={"int8": {}})
    config = planned(PHONE_SIZED).chosen.config
    for seconds in (decode_seconds, prefill_seconds):
        with pytest.raises(MobileMoEError, match="no time passes"):
            seconds(idle, config, 8)
