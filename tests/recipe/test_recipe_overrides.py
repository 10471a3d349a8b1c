"""`--set PATH=VALUE`: what it means, where it may point, and that the file's checks still hold."""

from __future__ import annotations

from typing import Any

import pytest

from mobilemoe.errors import MobileMoEError
from mobilemoe.recipe import load_recipe, parse_override

NANO = load_recipe("nano")


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("pretrain.lr=3e-4", ("pretrain", "lr"), 3e-4),
        ("seed=3", ("seed",), 3),
        (" run.threads = 1 ", ("run", "threads"), 1),
        ("pretrain.tokens=6_000_000", ("pretrain", "tokens"), 6_000_000),
        ("run.compile=true", ("run", "compile"), True),
        ("pretrain.schedule=linear", ("pretrain", "schedule"), "linear"),
        ("pretrain.schedule='linear'", ("pretrain", "schedule"), "linear"),
        ("tokenizer=facebook/MobileMoE-S-Base", ("tokenizer",), "facebook/MobileMoE-S-Base"),
        ("qat.for_domains=['a', 'b']", ("qat", "for_domains"), ["a", "b"]),
        ("sft.mixture={a=0.5, b=0.5}", ("sft", "mixture"), {"a": 0.5, "b": 0.5}),
        ("sources.x.path='a=b'", ("sources", "x", "path"), "a=b"),
        ("sft.capacity_factor=", ("sft", "capacity_factor"), None),
    ],
)
def test_values_are_written_as_in_a_file(text: str, path: tuple[str, ...], value: Any) -> None:
    override = parse_override(text)
    assert (override.path, override.value) == (path, value)
    assert type(override.value) is type(value)


@pytest.mark.parametrize(
    "text",
    ["seed", "=3", "a..b=1", ".a=1", "seed='open", "seed=1\nname='x'", "sft.mixture={a=1", "x=[1"],
)
def test_what_is_not_an_override_is_refused(text: str) -> None:
    with pytest.raises(MobileMoEError) as caught:
        parse_override(text)
    assert "pretrain.lr=3e-4" in caught.value.hint


def test_an_override_changes_that_value_and_no_other() -> None:
    changed = load_recipe("nano", ["pretrain.lr=3e-4"])
    assert changed.stage("pretrain").lr == 3e-4
    assert changed.stages[1:] == NANO.stages[1:]
    assert load_recipe("nano", ["pretrain.lr=3e-3"]) == NANO


def test_the_last_override_of_a_value_wins() -> None:
    assert load_recipe("nano", ["seed=3", "seed=4"]).seed == 4


def test_a_field_of_a_preset_can_be_overridden() -> None:
    changed = load_recipe(
        "nano", ["model.num_hidden_layers=6", "model.max_position_embeddings=512"]
    )
    assert changed.model.num_hidden_layers == 6
    assert changed.model.hidden_size == NANO.model.hidden_size
    assert load_recipe("nano", ["model=S", "model.num_hidden_layers=6"]).model.hidden_size == 768


def test_shares_are_checked_after_all_overrides() -> None:
    moved = load_recipe("nano", ["pretrain.mixture.code=0.5", "pretrain.mixture.math=0.15"])
    assert moved.stage("pretrain").mixture == {"code": 0.5, "knowledge": 0.35, "math": 0.15}
    with pytest.raises(MobileMoEError, match=r"sum of pretrain\.mixture"):
        load_recipe("nano", ["pretrain.mixture.code=0.5"])


def test_a_stage_changes_its_dispatch_by_removing_the_capacity() -> None:
    changes = ["pretrain.dispatch=dropless", "pretrain.capacity_factor="]
    assert load_recipe("nano", changes).stage("pretrain").capacity_factor is None
    changes = ["sft.dispatch=drop-and-pad", "sft.capacity_factor=1.25"]
    assert load_recipe("nano", changes).stage("sft").capacity_factor == 1.25


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("pretrain.lrr=1", "did you mean 'lr'?"),
        ("prtrain.lr=1", "did you mean 'pretrain'?"),
        ("run.thread=1", "did you mean 'threads'?"),
        ("pretrain.mixture.cod=0.5", "did you mean 'code'?"),
        ("sources.cod.path=x", "did you mean 'code'?"),
        ("sources.code.paths=x", "did you mean 'path'?"),
        ("model.num_layers=3", "did you mean 'num_hidden_layers'?"),
        ("zzz=1", "allowed: name, model"),
        ("pretrain.lr.peak=1", "give pretrain.lr=VALUE"),
        ("seed.x=1", "give seed=VALUE"),
        ("pretrain.mixture.code.x=1", "give pretrain.mixture.code=VALUE"),
    ],
)
def test_an_unknown_path_is_refused_with_the_nearest(text: str, hint: str) -> None:
    with pytest.raises(MobileMoEError) as caught:
        load_recipe("nano", [text])
    assert caught.value.message.startswith(f"override {text!r}: ")
    assert hint in caught.value.hint
