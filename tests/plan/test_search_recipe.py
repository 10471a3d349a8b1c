"""The recipe of a plan: it reads back, trains the chosen model and keeps what is published."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mobilemoe import MobileMoEError, ModelConfig
from mobilemoe.plan import Constraints, plan
from mobilemoe.plan.search.recipe import plan_recipe, recipe_text
from mobilemoe.recipe import load_recipe, parse_recipe

PAPER = Constraints(5_000_000_000, flops_per_token=1_100_000_000)
NANO = Constraints(4_750_000, context=1024, vocab_size=4096, flops_per_token=3_200_000)


@pytest.mark.parametrize(
    "constraints",
    [PAPER, NANO, replace(PAPER, tokens=1e12), replace(NANO, memory_bytes=600_000)],
    ids=["m", "nano", "tokens", "small"],
)
def test_the_text_reads_back_as_the_recipe(constraints: Constraints) -> None:
    result = plan(constraints, with_sensitivity=False)
    text = recipe_text(result, "mine")
    assert text.startswith("# mine: written by")
    assert parse_recipe(text) == plan_recipe(result, "mine")
    assert parse_recipe(text).model == result.chosen.config


def test_without_a_training_budget_it_is_the_built_in_recipe() -> None:
    result = plan(PAPER, with_sensitivity=False)
    assert plan_recipe(result, "m") == load_recipe("m")
    assert plan_recipe(plan(NANO, with_sensitivity=False), "nano") == load_recipe("nano")


def test_a_training_budget_scales_all_stages_alike() -> None:
    result = plan(replace(PAPER, tokens=6e11), with_sensitivity=False)
    recipe, built_in = plan_recipe(result, "short"), load_recipe("m")
    for mine, theirs in zip(recipe.stages, built_in.stages, strict=True):
        assert mine.tokens == pytest.approx(theirs.tokens / 10, abs=1)
        assert (mine.lr, mine.context, mine.mixture) == (theirs.lr, theirs.context, theirs.mixture)
        assert mine.warmup_steps <= max(1, mine.steps // 10)


def test_the_nearest_recipe_in_size_is_the_template() -> None:
    for flops, name in ((600_000_000, "s"), (1_900_000_000, "l")):
        result = plan(replace(PAPER, flops_per_token=flops), with_sensitivity=False)
        assert plan_recipe(result, name) == load_recipe(name)


def test_another_vocabulary_takes_the_tokenizer_that_is_trained_to_it() -> None:
    result = plan(replace(PAPER, vocab_size=32_000), with_sensitivity=False)
    recipe = plan_recipe(result, "other")
    assert recipe.tokenizer == "embedded"
    assert recipe.model.vocab_size == 32_000


def test_a_dense_model_shares_no_experts_and_a_short_context_shortens_the_rows() -> None:
    small = Constraints(200_000_000, context=1024)
    result = plan(small, with_sensitivity=False)
    assert result.chosen.shape.is_dense
    recipe = plan_recipe(result, "dense")
    assert recipe.parallel.expert_parallel == 1
    assert [stage.context for stage in recipe.stages] == [1024] * 4
    assert all(stage.batch_tokens % stage.context == 0 for stage in recipe.stages)


def test_experts_keep_the_published_expert_parallelism() -> None:
    result = plan(PAPER, with_sensitivity=False)
    assert plan_recipe(result, "m").parallel.expert_parallel == 4
    assert result.chosen.config == ModelConfig.preset("M")


def test_a_name_that_no_recipe_can_have_is_refused() -> None:
    with pytest.raises(MobileMoEError, match="name is 'two words'"):
        plan_recipe(plan(NANO, with_sensitivity=False), "two words")
