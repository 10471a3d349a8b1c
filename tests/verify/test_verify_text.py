"""The tokenizer and the chat template of a checkpoint, and the prompt made with them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from verify_support import SQUARE

from mobilemoe.checkpoint import (
    Checkpoint,
    open_checkpoint,
    synthetic_tokenizer_json,
    write_checkpoint,
)
from mobilemoe.checkpoint.chat_known import CHAT_TEMPLATE
from mobilemoe.checkpoint.synthetic_tokenizer import ends_turns
from mobilemoe.presets import PRESETS
from mobilemoe.verify.prompt import PASSAGES, prompt_ids
from mobilemoe.verify.text import text_checks

SPECIAL = ("<|begin_of_text|>", "<|end_of_text|>", "<|header_start|>", "<|header_end|>", "<|eot|>")
CONFIG = replace(SQUARE, vocab_size=288, num_hidden_layers=1, eos_token_id=(1, 4))


def byte_tokenizer(special=SPECIAL) -> str:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*special, *letters])}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    return tokenizer.to_str()


def write(folder, tokenizer=None, config=CONFIG, chat=True):
    def read(name):
        shape = next(w.shape for w in config.weights() if w.name == name)
        return np.ones(shape, np.float32)

    tokenizer = byte_tokenizer() if tokenizer is None else tokenizer
    return write_checkpoint(folder / "model", config, "bf16", read, tokenizer, chat)


def statuses(checkpoint):
    return {check.name: check.status for check in text_checks(checkpoint)}


def test_a_sound_tokenizer_passes(tmp_path):
    found = statuses(write(tmp_path))
    assert found["ids"] == found["chat"] == found["chat markers"] == found["end of turn"] == "pass"
    assert "fail" not in found.values()


def test_ids_outside_the_vocabulary_fail(tmp_path):
    small = replace(CONFIG, vocab_size=256)
    found = statuses(write(tmp_path, config=small))
    assert found["ids"] == "fail"


@pytest.mark.parametrize("place", ["vocabulary", "added token"])
def test_an_id_beyond_a_hole_fails(tmp_path, place):
    """The first id outside the embedding has no token, and no text needs the one after it."""
    values = json.loads(byte_tokenizer())
    values["model"]["vocab"]["far"] = 500
    if place == "added token":
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        values["added_tokens"].append({"id": 500, "content": "far", "special": True, **flags})
    found = {check.name: check for check in text_checks(write(tmp_path, json.dumps(values)))}
    assert (found["ids"].status, found["ids"].data["largest"]) == ("fail", 500)


def test_a_tokenizer_that_changes_text_fails(tmp_path):
    broken = json.loads(byte_tokenizer())
    broken["normalizer"] = {"type": "Lowercase"}
    assert "fail" in statuses(write(tmp_path, json.dumps(broken))).values()


def test_a_file_that_is_no_tokenizer_fails(tmp_path):
    checkpoint = write(tmp_path)
    (checkpoint.folder / "tokenizer.json").write_text("{}")
    expected = {"tokenizer": "fail", "chat": "skip", "end of turn": "skip"}
    assert statuses(checkpoint) == expected


def test_a_marker_in_several_tokens_fails(tmp_path):
    spelled = byte_tokenizer([token for token in SPECIAL if token != "<|eot|>"])
    assert statuses(write(tmp_path, spelled))["chat markers"] == "fail"


def test_a_base_model_has_no_chat(tmp_path):
    found = {check.name: check for check in text_checks(write(tmp_path, chat=False))}
    assert (found["chat"].status, found["chat"].detail) == ("skip", "no template: a Base model")


@pytest.mark.parametrize(
    "template", ["{{ 1 / 0 }}", "{% for m in messages %}{{ m['role'] }}{% endfor %}"]
)
def test_a_template_that_fails_or_drops_text_fails(tmp_path, template):
    checkpoint = write(tmp_path)
    path = checkpoint.folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": template}))
    assert statuses(checkpoint)["chat"] == "fail"


@pytest.mark.parametrize("value", [7, [1, 7], [1, 4, 7]])
def test_an_end_that_only_generation_config_has_fails(tmp_path, value):
    checkpoint = write(tmp_path)
    settings = checkpoint.folder / "generation_config.json"
    settings.write_text(json.dumps({"eos_token_id": value}))
    found = {check.name: check for check in text_checks(checkpoint)}["end of turn"]
    both = f"ends at {value if isinstance(value, list) else [value]}, config.json only at [1, 4]"
    assert (found.status, both in found.detail) == ("fail", True), found
    (checkpoint.folder / "tokenizer.json").unlink()
    assert statuses(checkpoint)["end of turn"] == "fail", "it needs no tokenizer"


@pytest.mark.parametrize("value", [4, [1], [4, 1], [], None])
def test_ends_that_config_has_too_pass(tmp_path, value):
    checkpoint = write(tmp_path)
    (checkpoint.folder / "generation_config.json").write_text(json.dumps({"eos_token_id": value}))
    assert statuses(checkpoint)["end of turn"] == "pass"


@pytest.mark.parametrize("text", ['{"eos_token_id": "4"}', '{"eos_token_id": [true]}', "[]", "{"])
def test_a_generation_config_that_says_no_ids_fails(tmp_path, text):
    checkpoint = write(tmp_path)
    (checkpoint.folder / "generation_config.json").write_text(text)
    assert statuses(checkpoint)["end of turn"] == "fail"


@pytest.mark.parametrize(
    ("ends", "status"), [((1, 4), "pass"), ((4,), "pass"), ((1,), "fail"), ((1, 3), "fail")]
)
def test_the_token_after_an_answer_must_end_a_turn(tmp_path, ends, status):
    config = replace(CONFIG, eos_token_id=ends)
    found = {check.name: check for check in text_checks(write(tmp_path, config=config))}
    assert found["end of turn"].status == status
    assert "<|eot|> 4" in found["end of turn"].detail


def test_without_a_template_no_turn_ends(tmp_path):
    assert statuses(write(tmp_path, chat=False))["end of turn"] == "skip"


def test_a_template_without_an_end_of_turn_fails(tmp_path):
    checkpoint = write(tmp_path)
    template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    (checkpoint.folder / "chat_template.jinja").write_text(template)
    assert statuses(checkpoint)["end of turn"] == "fail"


@pytest.mark.parametrize("preset", PRESETS)
def test_init_gives_a_chat_template_to_those_whose_turns_end(tmp_path, preset):
    """Base models of other families have one end, that of a text, and no chat."""
    config = PRESETS[preset]
    (tmp_path / "tokenizer.json").write_text(synthetic_tokenizer_json(config))
    (tmp_path / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    found = statuses(Checkpoint(tmp_path, config, "int4"))["end of turn"]
    assert found == ("pass" if ends_turns(config) else "fail")
    assert ends_turns(config) == (preset in ("S", "M", "L", "nano"))


def test_the_prompt_takes_from_every_passage(tmp_path):
    checkpoint = write(tmp_path)
    ids, what = prompt_ids(checkpoint, 43, 0)
    assert len(ids) == 43
    assert ids[0] == checkpoint.config.bos_token_id
    assert what == "43 tokens of knowledge, code, mathematics and chat"
    from mobilemoe.checkpoint import Tokenizer as Ours

    text = Ours.from_folder(checkpoint.folder).decode(ids[1:])
    assert text == PASSAGES[0][:11] + PASSAGES[1][:11] + PASSAGES[2][:10] + PASSAGES[3][:10]


@pytest.mark.parametrize("vocabulary", [100, 288])
def test_without_a_fitting_tokenizer_ids_are_random(tmp_path, vocabulary):
    checkpoint = write(tmp_path, config=replace(CONFIG, vocab_size=vocabulary))
    if vocabulary == 288:
        (checkpoint.folder / "tokenizer.json").unlink()
    ids, what = prompt_ids(open_checkpoint(checkpoint.folder), 500, 7)
    assert what == "500 random ids, seed 7"
    assert min(ids) >= 0 and max(ids) < vocabulary
    assert len(set(ids)) > 60
