"""Asked with the publication's constraints, the planner proposes its models (arXiv 2605.27358)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mobilemoe import ModelConfig
from mobilemoe.plan import Constraints, Plan, plan
from mobilemoe.plan.search.constraints import Preference

# About 5 GB for INT4 weights and an INT8 cache; 2 FLOPs for each active parameter of sizes that
# the publication calls .3, .5 and .9 billion: S and M with 10 % to spare, L with 5 %.
PAPER = {"S": 600_000_000, "M": 1_100_000_000, "L": 1_900_000_000}


def limits(name: str, **changes: object) -> Constraints:
    return replace(
        Constraints(5_000_000_000, flops_per_token=PAPER[name]),
        **changes,  # type: ignore[arg-type]
    )


def planned(name: str, **changes: object) -> Plan:
    return plan(limits(name, **changes), with_sensitivity=False)


@pytest.mark.parametrize("name", PAPER)
def test_the_published_models_are_proposed(name: str) -> None:
    result = planned(name)
    assert result.chosen.config == ModelConfig.preset(name)
    shape = result.chosen.shape
    assert (shape.expert_equivalents, shape.granularity, shape.shared_expert) == (8, 8, True)
    assert (shape.routed_experts, shape.top_k) == (60, 4)


@pytest.mark.parametrize("name", PAPER)
@pytest.mark.parametrize("tokens", [100e9, 300e9, 6e12])
def test_the_published_models_are_proposed_at_any_token_count(name: str, tokens: float) -> None:
    assert planned(name, tokens=tokens).chosen.config == ModelConfig.preset(name)


@pytest.mark.parametrize("name", PAPER)
def test_the_plan_says_that_e_4_to_16_are_within_the_error(name: str) -> None:
    result = planned(name)
    said = " ".join(result.confidence)
    assert "E = 4, 8, 16 differ by less than the law's own error" in said
    why = {reason.name: reason.why for reason in result.reasons}
    assert "E = 4, 8, 16 are within its error" in why["expert_equivalents"]


def test_every_number_of_the_config_has_a_reason() -> None:
    result = planned("M")
    values = {reason.name: reason.value for reason in result.reasons}
    config = result.chosen.config.to_dict()
    shared = set(values) & set(config)
    assert {name: config[name] for name in shared} == {name: values[name] for name in shared}
    shape = {"hidden_size", "intermediate_size", "intermediate_size_mlp", "num_hidden_layers"}
    heads = {"num_attention_heads", "num_key_value_heads", "head_dim"}
    experts = {"num_local_experts", "num_experts_per_tok"}
    assert shape | heads | experts | {"vocab_size", "max_position_embeddings"} <= shared
    assert {"expert_equivalents", "granularity", "tokens"} <= set(values)


def test_beyond_the_fitted_tokens_models_are_compared_at_its_edge_and_it_is_said() -> None:
    result = planned("M", tokens=6e12)
    assert result.chosen.loss is not None
    assert result.chosen.loss.outside == ("tokens",)
    assert result.chosen.loss.tokens == 500e9
    assert result.chosen.tokens == 6e12
    text = " ".join(result.confidence)
    assert "compared at 500 billion" in text
    assert "E = 2 at 6 trillion" in text


def test_extrapolation_comes_only_on_request_and_prefers_two_experts_at_6t() -> None:
    """What the published fit says there, and what the trained models contradict."""
    result = planned("M", tokens=6e12, extrapolate=True)
    assert result.chosen.loss is not None
    assert result.chosen.loss.extrapolated
    best = min(result.front, key=lambda c: c.loss.loss if c.loss else 9)
    assert best.expert_equivalents == 2
    assert "an extrapolation" in result.confidence[0]


@pytest.mark.parametrize("prefer", ["memory", "training"])
def test_a_preference_decides_among_what_the_law_cannot_tell_apart(prefer: Preference) -> None:
    by_loss, by_wish = planned("M"), planned("M", prefer=prefer)
    assert by_loss.chosen.loss is not None
    assert by_wish.chosen.loss is not None
    assert by_wish.chosen.loss.loss - by_loss.front[0].loss.loss < 0.0076  # type: ignore[union-attr]
    if prefer == "memory":
        assert by_wish.chosen.memory_bytes < by_loss.chosen.memory_bytes
    else:
        assert by_wish.chosen.training_flops < by_loss.chosen.training_flops
