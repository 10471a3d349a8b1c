"""Folders and config.json files that are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from checkpoint_support import write_random

from mobilemoe.checkpoint import open_checkpoint
from mobilemoe.errors import CheckpointError, MobileMoEError


@pytest.fixture
def folder(tmp_path):
    return write_random(tmp_path / "model").folder


def change(folder, **values) -> None:
    """Overwrite keys of config.json; None removes the key."""
    path = folder / "config.json"
    config = json.loads(path.read_text()) | values
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def check_refused(folder, *words: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(folder)
    for word in (str(folder), *words):
        assert word in str(caught.value), (word, str(caught.value))


def test_a_path_may_be_text(folder):
    assert open_checkpoint(str(folder)) == open_checkpoint(folder)


def test_a_missing_folder(tmp_path):
    check_refused(
        tmp_path / "nowhere", "no checkpoint folder at", "hint: give a folder with config.json"
    )


def test_a_file_in_place_of_the_folder(folder):
    check_refused(folder / "config.json", "no checkpoint folder at")


@pytest.mark.parametrize(
    ("place", "hint"),
    [
        ("https://huggingface.co/a/b", "write a/b"),
        ("https://huggingface.co/a/b/", "write a/b"),
        ("https://huggingface.co/a/b/tree/v1", "write a/b@v1"),
        ("https://huggingface.co/a/b/blob/main/config.json", "write a/b@main"),
        ("http://hf.co/a/b?x=1", "write a/b"),
        ("hf://a/b", "write a/b"),
        (Path("https://huggingface.co/a/b"), "write a/b"),
        ("model/model.safetensors", "it is a file; give its folder model"),
        ("model/config.json", "it is a file; give its folder model"),
        (Path("model/config.json"), "it is a file; give its folder model"),
        ("a/b/", "write a/b for the model of the hub, without a slash at the end"),
        (Path("a/b"), "give a hub id as text, not as a Path"),
        (Path("a/b@v1"), "give a hub id as text, not as a Path"),
        ("model/none", "model/ is a folder here, so this is a path; model/none@main asks the hub"),
        (Path("model/none"), "model/ is a folder here, so this is a path; model/none@main"),
        ("https://example.org/a/b", "give a folder with config.json"),
        ("a/b/c", "give a folder with config.json"),
        ("none", "give a folder with config.json"),
    ],
)
def test_what_was_meant_is_the_hint(folder, monkeypatch, place, hint):
    monkeypatch.chdir(folder.parent)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(place)
    assert caught.value.message == f"no checkpoint folder at {place}"
    assert caught.value.hint.startswith(hint)
    assert hint.startswith("give a folder") == caught.value.hint.startswith("give a folder")


def test_a_hub_id_as_a_path_is_told_so_with_a_revision_too(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    with pytest.raises(MobileMoEError, match="give a hub id as text, not as a Path"):
        open_checkpoint(Path("a/b"), "main")
    with pytest.raises(MobileMoEError, match="leave the revision out"):
        open_checkpoint("model", "main")


def test_an_empty_folder(tmp_path):
    check_refused(tmp_path, "has no config.json")


def test_config_json_is_a_folder(tmp_path):
    (tmp_path / "config.json").mkdir()
    check_refused(tmp_path, "cannot read", "config.json")


@pytest.mark.parametrize(
    "text", [b"", b"{", b"not json", b"\xff\xfe", b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}"]
)
def test_config_json_that_is_no_json(folder, text):
    (folder / "config.json").write_bytes(text)
    check_refused(folder, "cannot read", "config.json")


@pytest.mark.parametrize("text", ["[]", "null", "3", '"mobilemoe"'])
def test_config_json_that_is_no_object(folder, text):
    (folder / "config.json").write_text(text)
    check_refused(folder, "is not a JSON object")


@pytest.mark.parametrize("value", ["llama", "MobileMoE", 3, None])
def test_another_model_type(folder, value):
    change(folder, model_type=value)
    check_refused(folder, f"model_type is {value!r}; allowed: 'mobilemoe'")


def test_an_unknown_key_is_named(folder):
    change(folder, sliding_window=512)
    check_refused(folder, "unknown key 'sliding_window'", "hint:")


@pytest.mark.parametrize("key", ["vocab_size", "hidden_size", "num_local_experts", "head_dim"])
def test_a_missing_key_is_named(folder, key):
    change(folder, **{key: None})
    check_refused(folder, f"missing key {key!r}")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("vocab_size", "512"),
        ("hidden_size", 33),
        ("num_attention_heads", 0),
        ("num_hidden_layers", -1),
        ("num_experts_per_tok", 4),
        ("rms_norm_eps", float("nan")),
        ("rope_theta", float("inf")),
        ("hidden_act", "gelu"),
        ("use_qk_norm", False),
        ("attention_bias", True),
        ("norm_topk_prob", False),
        ("tie_word_embeddings", "yes"),
        ("eos_token_id", []),
        ("eos_token_id", [8]),
        ("no_rope_layers", [0]),
        ("layer_types", ["sliding_attention"]),
        ("rope_scaling", {"rope_type": "yarn"}),
    ],
)
def test_values_that_make_another_model(folder, key, value):
    change(folder, **{key: value})
    check_refused(folder, key)


@pytest.mark.parametrize(
    "block",
    [
        {"format": "gptq"},
        {"group_size": 64},
        {"qmin": -7},
        {"scale_dtype": "bfloat16"},
        {"expert_group_axis": "in"},
        {"surprise": 1},
    ],
)
def test_another_quantisation(folder, block):
    released = json.loads((folder / "config.json").read_text())["quantization"]
    change(folder, quantization=released | block)
    check_refused(folder, "quantization is", "allowed:")


@pytest.mark.parametrize("block", [{}, [], "int4", 4, False])
def test_a_quantisation_block_of_another_kind(folder, block):
    change(folder, quantization=block)
    check_refused(folder, "quantization is")


def test_an_incomplete_quantisation_block(folder):
    released = json.loads((folder / "config.json").read_text())["quantization"]
    for key in released:
        change(folder, quantization={k: v for k, v in released.items() if k != key})
        check_refused(folder, "quantization is")


def test_weights_are_checked_when_they_are_opened_not_before(folder):
    (folder / "model.safetensors").unlink()
    checkpoint = open_checkpoint(folder)
    with pytest.raises(CheckpointError, match="cannot read"):
        checkpoint.tensors()
    with pytest.raises(CheckpointError, match="cannot read"):
        next(checkpoint.read_weights())
