"""A recipe that is written reads back as itself, and its identity follows what is trained."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from recipe_cases import recipes

from mobilemoe.recipe import (
    Guard,
    Parallel,
    Recipe,
    Run,
    difference,
    dump_recipe,
    load_recipe,
    parse_recipe,
    recipe_id,
)

NANO = load_recipe("nano")
# What changes the weights, and how it is said in an override.
TRAINED = [
    "model.num_hidden_layers=6",
    "seed=3",
    "tokenizer=other",
    "optimizer.beta2=0.99",
    "routing.z_loss=0",
    "sources.code.max_tokens=1000",
    "sources.math.generate=1000",
    "pretrain.tokens=7000000",
    "midtrain.context=256",
    "sft.batch_tokens=4096",
    "qat.lr=1e-4",
    "pretrain.schedule=linear",
    "sft.final_lr=0.2",
    "midtrain.warmup_steps=5",
    "pretrain.mixture={code=0.5, knowledge=0.5}",
    "pretrain.capacity_factor=2",
    "qat.activations=float",
]
NOT_TRAINED = [
    "name=other",
    "run.threads=1",
    "run.micro_batch_rows=2",
    "guard.window=9",
    "parallel.expert_parallel=4",
    "sft.purpose='another word'",
    "sources.code.licence=other",
    "sft.for_domains=['code']",
]


@settings(max_examples=40, deadline=None)
@given(recipes())
def test_what_is_written_reads_back_equal_and_is_written_the_same(recipe: Recipe) -> None:
    text = dump_recipe(recipe)
    again = parse_recipe(text)
    assert again == recipe
    assert dump_recipe(again) == text
    assert recipe_id(again) == recipe_id(recipe)


@settings(max_examples=15, deadline=None)
@given(recipes(), recipes())
def test_ids_are_equal_exactly_if_nothing_that_is_trained_differs(a: Recipe, b: Recipe) -> None:
    assert (recipe_id(a) == recipe_id(b)) == (difference(a, b) == ())
    same = replace(b, name=a.name, run=a.run, guard=a.guard, parallel=a.parallel)
    assert recipe_id(same) == recipe_id(b)


def test_the_text_does_not_depend_on_the_order_of_names() -> None:
    turned = dict(reversed(NANO.sources.items()))
    stages = tuple(
        replace(stage, mixture=dict(reversed(stage.mixture.items()))) for stage in NANO.stages
    )
    assert dump_recipe(replace(NANO, sources=turned, stages=stages)) == dump_recipe(NANO)


def test_whole_numbers_and_floats_of_one_value_are_one_recipe() -> None:
    whole = load_recipe("nano", ["optimizer.clip_norm=1"])
    assert type(whole.optimizer.clip_norm) is int
    assert dump_recipe(whole) == dump_recipe(NANO)


@pytest.mark.parametrize("override", TRAINED)
def test_what_is_trained_changes_the_id_and_is_named(override: str) -> None:
    changed = load_recipe("nano", [override])
    assert recipe_id(changed) != recipe_id(NANO)
    path = override.partition("=")[0]
    assert {change.path.startswith(path) for change in difference(NANO, changed)} == {True}


@pytest.mark.parametrize("override", NOT_TRAINED)
def test_how_it_runs_does_not_change_the_id(override: str) -> None:
    changed = load_recipe("nano", [override])
    assert changed != NANO
    assert recipe_id(changed) == recipe_id(NANO)
    assert difference(NANO, changed) == ()


def test_a_difference_says_path_and_both_values() -> None:
    changes = ["pretrain.lr=1e-3", "pretrain.dispatch=dropless", "pretrain.capacity_factor="]
    assert list(map(str, difference(NANO, load_recipe("nano", changes)))) == [
        "pretrain.lr: 0.003 -> 0.001",
        "pretrain.dispatch: 'drop-and-pad' -> 'dropless'",
        "pretrain.capacity_factor: 1.5 -> absent",
    ]


def test_a_share_of_a_source_called_licence_counts() -> None:
    """The id leaves out the key `licence` of a source, not a source of that name."""
    text = dump_recipe(NANO).replace("sources.math]", "sources.licence]")
    text = text.replace("\nmath =", "\nlicence =")
    recipe = parse_recipe(text)
    changed = parse_recipe(text, ["pretrain.mixture.licence=0.1", "pretrain.mixture.code=0.55"])
    paths = {change.path for change in difference(recipe, changed)}
    assert paths == {"pretrain.mixture.licence", "pretrain.mixture.code"}


def test_every_value_is_written_out() -> None:
    recipe = replace(NANO, run=Run(), guard=Guard(), parallel=Parallel())
    text = dump_recipe(recipe)
    assert "[model]\nvocab_size = 4_096\n" in text
    for key in ("save_every_seconds", "collapse_load", "hang_timeout_s", "rms_norm_eps"):
        assert f"\n{key} = " in text
