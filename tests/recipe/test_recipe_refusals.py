"""Everything that a recipe may not say is refused, with where, value, allowed and a hint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mobilemoe.errors import MobileMoEError
from mobilemoe.recipe import (
    Guard,
    Optimizer,
    Parallel,
    Recipe,
    RoutingLosses,
    Run,
    Source,
    Stage,
    dump_recipe,
    load_recipe,
    parse_recipe,
)

NANO = load_recipe("nano")
TEXT = dump_recipe(NANO)

# An override of nano, and words of the refusal.
VALUES = [
    ("pretrain.lr=-1", "pretrain.lr is -1; allowed: above 0, at most 1"),
    ("pretrain.lr=0", "pretrain.lr is 0; allowed: above 0"),
    ("pretrain.lr=nan", "pretrain.lr is nan"),
    ("pretrain.lr=inf", "pretrain.lr is inf"),
    ("pretrain.lr='fast'", "pretrain.lr is 'fast'; allowed: a number"),
    ("pretrain.lr=true", "pretrain.lr is true; allowed: a number"),
    ("pretrain.tokens=1.5", "pretrain.tokens is 1.5; allowed: a whole number"),
    ("pretrain.tokens=true", "pretrain.tokens is true"),
    ("pretrain.tokens=0", "pretrain.tokens is 0"),
    ("pretrain.context=1", "pretrain.context is 1; allowed: 2 to"),
    ("pretrain.batch_tokens=2000", "pretrain.batch_tokens is 2000; allowed: a multiple of context"),
    ("pretrain.schedule=cosin", "pretrain.schedule is 'cosin'; allowed: 'cosine', 'linear'"),
    ("pretrain.final_lr=1.5", "pretrain.final_lr is 1.5; allowed: 0 to 1"),
    ("pretrain.warmup_steps=-1", "pretrain.warmup_steps is -1"),
    ("pretrain.warmup_steps=5000", "allowed: 0 to 2,930, the steps of the stage"),
    ("pretrain.purpose=3", "pretrain.purpose is 3; allowed: a text"),
    ("pretrain.for_domains=code", "pretrain.for_domains is 'code'; allowed: a list of texts"),
    ("pretrain.for_domains=['cod']", "pretrain.for_domains is 'cod'"),
    ("pretrain.dispatch=dropped", "'drop-and-pad' or 'dropless'"),
    ("pretrain.dispatch=dropless", "pretrain.capacity_factor is 1.5; allowed: left out"),
    ("pretrain.capacity_factor=", "lacks capacity_factor"),
    ("pretrain.capacity_factor=0", "pretrain.capacity_factor is 0"),
    ("sft.capacity_factor=1.5", "sft.capacity_factor is 1.5; allowed: left out"),
    ("pretrain.quantization=int4", "pretrain.quantization is 'int4'; allowed: none before qat"),
    ("qat.quantization=int8", "qat.quantization is 'int8'; allowed: 'none' or 'int4'"),
    ("qat.quantization=none", "qat.activations is 'int8'; allowed: float"),
    ("qat.activations=int4", "qat.activations is 'int4'; allowed: 'float' or 'int8'"),
    ("pretrain.mixture.code=0.5", "the sum of pretrain.mixture is 1.05; allowed: 1"),
    ("pretrain.mixture={}", "the sum of pretrain.mixture is 0"),
    ("pretrain.mixture={code=2, math=-1}", "pretrain.mixture.code is 2; allowed: 0 to 1"),
    ("pretrain.mixture={code=1, cod=0}", "pretrain.mixture is 'cod'; allowed: names of"),
    ("pretrain.mixture={code='all'}", "allowed: a table, each value a number"),
    ("pretrain=3", "pretrain is 3; allowed: a table, [pretrain]"),
    ("seed=-1", "seed is -1; allowed: 0 to"),
    ("seed=1.0", "seed is 1.0; allowed: a whole number"),
    ("name='../up'", "name is '../up'; allowed: letters"),
    ("name=3", "name is 3; allowed: a text"),
    ("tokenizer=''", "tokenizer is ''"),
    ("model=foo", "no preset called 'foo'"),
    ("model=3", "model is 3; allowed: a preset's name or a table"),
    ("model.num_hidden_layers=0", "model.num_hidden_layers is 0; allowed: 1 to"),
    ("model.head_dim=", "[model] lacks head_dim"),
    ("model.max_position_embeddings=256", "midtrain.context is 512; allowed: 2 to"),
    ("optimizer.beta1=1", "optimizer.beta1 is 1; allowed: 0 to below 1"),
    ("optimizer.eps=", "[optimizer] lacks eps"),
    ("routing.z_loss=2", "routing.z_loss is 2; allowed: 0 to 1"),
    ("run.device=tpu", "run.device is 'tpu'; allowed: 'auto', 'cpu', 'cuda'"),
    ("run.threads=0", "run.threads is 0; allowed: 1 to"),
    ("run.threads=two", "run.threads is 'two'; allowed: a whole number, or left out"),
    ("guard.window=0", "guard.window is 0"),
    ("parallel.expert_parallel=7", "a divisor of num_local_experts 60"),
    ("sources.code.path=cod", "sources.code.path is 'cod'; allowed: embedded: code"),
    ("sources.code.kind=csv", "sources.code.kind is 'csv'"),
    ("sources.code.split=train", "sources.code.split is 'train'; allowed: left out"),
    ("sources.code.text_field=text", "sources.code.text_field is 'text'; allowed: left out"),
    ("sources.code.domain='a b'", "sources.code.domain is 'a b'"),
    ("sources.code.max_tokens=0", "sources.code.max_tokens is 0"),
    ("sources.math.generate=0", "sources.math.generate is 0"),
    ("sources.code.generate=10", "sources.code.generate is 10"),
    ("sources.code=3", "sources.code is 3; allowed: a table"),
    ("sources=3", "sources is 3; allowed: a table"),
]
# Text of a file to replace, by what, words of the refusal, words of its hint.
KEYS = [
    ("[optimizer]", "[optimiser]", "unknown table 'optimiser'", "did you mean 'optimizer'?"),
    ("beta1 =", "beta_1 =", "unknown key 'beta_1' in [optimizer]", "did you mean 'beta1'?"),
    ("seed =", "sed =", "unknown key 'sed' in the recipe", "did you mean 'seed'?"),
    ("head_dim =", "heads =", "unknown key 'heads' in [model]", "did you mean 'head_dim'?"),
    ('licence = "PSF-2.0"', 'license = "x"', "unknown key 'license'", "did you mean 'licence'?"),
    ("[pretrain.mixture]", "[pretrain.mix]", "unknown table 'mix' in [pretrain]", "'mixture'"),
    ("tracker =", "logger =", "unknown key 'logger' in [run]", "allowed: device, precision"),
    ("[sources.code]", '[sources."a.b"]', "a source's name is 'a.b'; allowed: letters", ""),
    ("purpose =", "#", "[pretrain] lacks purpose", "has no default"),
    ("seed = 0", "seed = ", "recipe is not TOML", "https://toml.io"),
    ("seed = 0", "seed = 0\nseed = 0", "recipe is not TOML", "https://toml.io"),
]


@pytest.mark.parametrize(("override", "words"), VALUES)
def test_a_value_out_of_type_or_range_is_refused(override: str, words: str) -> None:
    with pytest.raises(MobileMoEError) as caught:
        load_recipe("nano", [override])
    assert words in caught.value.message
    assert caught.value.message.startswith("nano with ")
    assert override in caught.value.message


@pytest.mark.parametrize(("old", "new", "words", "hint"), KEYS)
def test_a_misspelt_or_missing_key_is_refused(old: str, new: str, words: str, hint: str) -> None:
    assert old in TEXT
    with pytest.raises(MobileMoEError) as caught:
        parse_recipe(TEXT.replace(old, new, 1))
    assert words in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    "key",
    ["name", "seed", "tokenizer", "model", "optimizer", "routing", "sources", "sft", "qat"],
)
def test_what_is_trained_must_be_written_out(key: str) -> None:
    with pytest.raises(MobileMoEError, match=f"the recipe lacks {key}"):
        load_recipe("nano", [f"{key}="])


def test_how_it_runs_may_be_left_out() -> None:
    recipe = load_recipe("nano", ["run=", "guard=", "parallel="])
    assert (recipe.run, recipe.guard, recipe.parallel) == (Run(), Guard(), Parallel())


HUB = {
    "name": "web",
    "kind": "hf",
    "path": "a/b",
    "domain": "web",
    "licence": "MIT",
    "text_field": "text",
}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"messages_field": "messages"}, "exactly one of text_field and messages_field"),
        ({"text_field": None}, "exactly one of text_field and messages_field"),
        ({"text_field": ""}, "the name of a field"),
        ({"split": ""}, "sources.web.split"),
        ({"path": ""}, "sources.web.path"),
        ({"kind": "txt", "text_field": "text"}, "left out with kind 'txt'"),
        ({"kind": "jsonl", "subset": "x"}, "sources.web.subset is 'x'; allowed: left out"),
        ({"kind": "parquet", "revision": "x"}, "sources.web.revision is 'x'"),
        ({"name": "a.b"}, "a source's name is 'a.b'"),
        ({"licence": "\ud800"}, "sources.web.licence"),
    ],
)
def test_a_source_says_what_its_kind_needs_and_no_more(changes: dict, words: str) -> None:
    assert Source(**HUB).text_field == "text"
    with pytest.raises(MobileMoEError) as caught:
        Source(**HUB | changes)
    assert words in caught.value.message


def test_a_hub_source_in_a_file_names_its_split() -> None:
    table = '[sources.web]\nkind = "hf"\npath = "a/b"\ndomain = "web"\nlicence = "MIT"\n'
    text = TEXT + table + 'text_field = "text"\n'
    with pytest.raises(MobileMoEError, match=r"\[sources.web\] lacks split"):
        parse_recipe(text)
    assert parse_recipe(text + 'split = "test"\n').sources["web"].split == "test"


@pytest.mark.parametrize(
    "part",
    [
        lambda: Optimizer(beta1="high"),  # type: ignore[arg-type]
        lambda: RoutingLosses(z_loss=-1),
        lambda: Run(threads=1.5),  # type: ignore[arg-type]
        lambda: Guard(max_grad_factor=0.5),
        lambda: Parallel(expert_parallel=0),
        lambda: replace(NANO.stage("sft"), mixture={"code": 0.5}),
        lambda: replace(NANO.stage("sft"), int8_activations=True),
        lambda: replace(NANO, stages=NANO.stages[:3]),
        lambda: replace(NANO, stages=NANO.stages[::-1]),
        lambda: replace(NANO, sources={"other": NANO.sources["code"]}),
        lambda: replace(NANO, model="nano"),  # type: ignore[arg-type]
        lambda: NANO.stage("pretraining"),
    ],
)
def test_parts_made_in_python_are_checked_like_those_of_a_file(part: object) -> None:
    with pytest.raises(MobileMoEError, match="allowed"):
        part()  # type: ignore[operator]


def test_a_dense_model_has_no_experts_to_share() -> None:
    with pytest.raises(MobileMoEError, match="1 in a dense model"):
        load_recipe("nano", ["model=mobilellm-pro", "parallel.expert_parallel=2"])


def test_a_stage_stands_apart_from_the_four(tmp_path: Path) -> None:
    """The demo's control, for example: checks of the four belong to the recipe."""
    control: Stage = replace(
        NANO.stage("qat"), name="control", fake_quant=False, int8_activations=False
    )
    assert control.name == "control"
    with pytest.raises(MobileMoEError, match="stages"):
        replace(NANO, stages=(*NANO.stages[:3], control))


@pytest.mark.parametrize("content", [b"\xff\xfe", b"x = " + b"[" * 100_000])
def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    with pytest.raises(MobileMoEError, match=r"bad\.toml"):
        load_recipe(path)


@pytest.mark.parametrize("name", ["nnao", "recipes/none.toml", ".", ""])
def test_an_unknown_recipe_is_refused_with_the_names_there_are(name: str) -> None:
    with pytest.raises(MobileMoEError, match=r"allowed: a TOML file, or one of .*nano"):
        load_recipe(name)


def test_an_error_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(TEXT.replace("lr = 0.003", "lr = 3.0"))
    with pytest.raises(MobileMoEError) as caught:
        load_recipe(path)
    assert caught.value.message == f"{path}: pretrain.lr is 3.0; allowed: above 0, at most 1"


def test_a_recipe_is_a_recipe() -> None:
    assert isinstance(parse_recipe(TEXT), Recipe)
