"""The built-in recipes: what the publication fixes, and what their comments promise."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from mobilemoe.config import ModelConfig
from mobilemoe.recipe import (
    Parallel,
    Recipe,
    Run,
    builtin_recipes,
    dump_recipe,
    load_recipe,
    parse_recipe,
)
from mobilemoe.recipe.load import BUILT_IN, SWEEPS

FOLDER = Path(__file__).parents[2] / "recipes"
NAMES = ("l", "m", "micro", "nano", "s", "shipped")
PUBLISHED = ("s", "m", "l")
ALL = {name: load_recipe(name) for name in NAMES}

# Shares of each stage by domain, in per cent; "rest" is what the publication does not split.
SHARES = {
    "pretrain": {"web": 62, "math": 11.6, "code": 10, "knowledge": 10, "science": 6.4},
    "midtrain": {"web": 9, "knowledge": 32, "code": 22, "math": 21, "science": 16},
    "sft": {
        "math": 30.4,
        "chat": 25.4,
        "code": 22.1,
        "safety": 9.4,
        "science": 7.7,
        "tools": 3.9,
        "reasoning": 1.1,
    },
}


def shares(recipe: Recipe, stage: str) -> dict[str, float]:
    """Return per cent by domain."""
    total: dict[str, float] = {}
    for name, share in recipe.stage(stage).mixture.items():
        domain = recipe.sources[name].domain
        total[domain] = total.get(domain, 0) + 100 * share
    return total


def test_the_package_carries_every_recipe_of_the_repository() -> None:
    assert builtin_recipes() == NAMES
    recipes = (path.stem for path in FOLDER.glob("*.toml") if not path.stem.startswith(SWEEPS))
    assert tuple(sorted(recipes)) == NAMES
    for path in FOLDER.glob("*.toml"):
        assert (BUILT_IN / path.name).read_text() == path.read_text()


@pytest.mark.parametrize("name", NAMES)
def test_a_file_and_its_name_are_one_recipe(name: str) -> None:
    assert load_recipe(FOLDER / f"{name}.toml") == ALL[name] == load_recipe(name.upper())
    assert ALL[name].name == name
    assert parse_recipe(dump_recipe(ALL[name])) == ALL[name]


@pytest.mark.parametrize("name", NAMES)
def test_published_schedules_and_dispatch(name: str) -> None:
    stages = ALL[name].stages
    assert [s.schedule for s in stages] == ["cosine", "linear", "cosine", "cosine"]
    assert [s.capacity_factor for s in stages] == [1.5, 1.5, None, None]
    assert [(s.fake_quant, s.int8_activations) for s in stages] == [(False, False)] * 3 + [
        (True, True)
    ]
    assert stages[0].context < stages[1].context == stages[2].context == stages[3].context
    rate = 3e-3 if name == "shipped" else 1e-3  # a choice that the recipe explains
    assert (ALL[name].routing.bias_update_rate, ALL[name].routing.z_loss) == (rate, 1e-4)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_tokens_contexts_and_rates(name: str) -> None:
    recipe = ALL[name]
    assert recipe.model == ModelConfig.preset(name)
    assert [s.tokens for s in recipe.stages] == [6 * 10**12, 500 * 10**9, 126 * 10**9, 21 * 10**9]
    assert [s.context for s in recipe.stages] == [2048, 8192, 8192, 8192]
    assert [s.lr for s in recipe.stages] == [4e-4, 4e-5, 4e-6, 4e-6]
    assert recipe.parallel.expert_parallel == 4


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("stage", SHARES)
def test_published_shares_of_the_domains(name: str, stage: str) -> None:
    assert shares(ALL[name], stage) == pytest.approx(SHARES[stage])


@pytest.mark.parametrize("name", PUBLISHED)
def test_conversations_are_what_sft_is_made_of(name: str) -> None:
    recipe = ALL[name]
    assert all(recipe.sources[source].is_conversations for source in recipe.stage("sft").mixture)
    used = {source for stage in recipe.stages for source in stage.mixture}
    assert used == set(recipe.sources)


def test_the_published_recipes_differ_in_model_tokenizer_and_run_alone() -> None:
    def bare(recipe: Recipe) -> Recipe:
        nano = ModelConfig.preset("nano")
        model = replace(nano, max_position_embeddings=8192)
        return replace(recipe, name="x", model=model, tokenizer="x", run=Run(), parallel=Parallel())

    assert bare(ALL["s"]) == bare(ALL["m"]) == bare(ALL["l"])
    assert ALL["m"].tokenizer == "facebook/MobileMoE-M-Base"


def test_nano_is_the_preset_on_the_embedded_corpus() -> None:
    nano = ALL["nano"]
    assert nano.model == ModelConfig.preset("nano")
    assert [s.tokens for s in nano.stages] == [6 * 10**6, 2 * 10**6, 1_200_000, 800_000]
    assert {s.batch_tokens for s in nano.stages} == {2048}
    for name in ("nano", "micro"):
        assert {source.kind for source in ALL[name].sources.values()} == {"embedded"}


def test_micro_fits_into_12_mb() -> None:
    model = ALL["micro"].model
    assert model.weight_bytes("int4") < 12e6
    text = (FOLDER / "micro.toml").read_text()
    total, active = model.total_params / 1e6, model.active_params / 1e6
    size = model.weight_bytes("int4") / 1e6
    assert f"{total:.1f}M parameters, {active:.1f}M active, {size:.1f} MB in INT4" in text


@pytest.mark.parametrize("name", NAMES)
def test_every_number_says_where_it_comes_from(name: str) -> None:
    """A value of a stage or of the optimiser is published or our choice, with a reason."""
    keys = "tokens|context|batch_tokens|lr|schedule|warmup_steps|final_lr|capacity_factor|beta1|eps"
    lines = (FOLDER / f"{name}.toml").read_text().splitlines()
    numbers = [line for line in lines if re.match(rf"({keys}) = ", line)]
    assert len(numbers) == 4 * 7 + 2 + 2
    for line in numbers:
        assert re.search(r"# (as )?published|# our choice: \w", line), line


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_comment_counts_the_parameters_right(name: str) -> None:
    model = ALL[name].model
    said = f"{model.total_params / 1e9:.2f}B parameters, {model.active_params / 1e9:.2f}B active"
    assert said in (FOLDER / f"{name}.toml").read_text()
