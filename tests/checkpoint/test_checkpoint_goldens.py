"""Known answers of the released tokenizer: passed, failed, or not applicable and why."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from tokenizer_support import NANO, S, as_large_as_released, synthetic, write_tokenizer
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers

from mobilemoe.checkpoint import Tokenizer, golden_check, synthetic_tokenizer_json
from mobilemoe.checkpoint.byte_level import LETTER_OF_BYTE
from mobilemoe.data import train_tokenizer

REAL = os.environ.get("MOBILEMOE_TOKENIZER")
IDS, SPECIAL = "ids of 'Hello, MobileMoE!'", "ids of the special tokens"


def by_name(tokenizer: Tokenizer) -> dict:
    checks = golden_check(tokenizer)
    results = {check.name: check for check in checks}
    assert len(results) == len(checks)
    assert all(check.detail for check in checks)
    return results


def statuses(tokenizer: Tokenizer) -> dict[str, str]:
    return {name: check.status for name, check in by_name(tokenizer).items()}


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Tokenizer:
    return Tokenizer.from_folder(
        write_tokenizer(tmp_path_factory.mktemp("large") / "model", as_large_as_released())
    )


@pytest.mark.skipif(REAL is None, reason="MOBILEMOE_TOKENIZER names no tokenizer.json")
def test_the_real_tokenizer_gives_the_released_answers():
    tokenizer = Tokenizer.from_file(Path(str(REAL)))
    assert {check.status for check in golden_check(tokenizer)} == {"pass"}, golden_check(tokenizer)
    assert tokenizer.encode("Hello, MobileMoE!") == [128000, 9906, 11, 13716, 26694, 36, 0]
    assert tokenizer.decode(tokenizer.encode("a . b , c")) == "a . b , c"


def test_a_vocabulary_of_the_released_ids_passes_everything(large):
    assert set(statuses(large).values()) == {"pass"}


def test_a_wrong_id_is_shown(tmp_path):
    document = as_large_as_released()
    vocabulary = document["model"]["vocab"]
    vocabulary["Hello"], vocabulary["no text 7000"] = (
        vocabulary["no text 7000"],
        vocabulary["Hello"],
    )
    results = by_name(Tokenizer.from_folder(write_tokenizer(tmp_path / "model", document)))
    assert results[IDS].status == "fail"
    assert "[128000, 7000, 11" in results[IDS].detail
    assert "instead of [128000, 9906, 11, 13716, 26694, 36, 0]" in results[IDS].detail
    assert {check.status for name, check in results.items() if name != IDS} == {"pass"}


def test_a_moved_special_token_is_shown(tmp_path):
    names = {"<|eot|>": "<|gone|>", "<|reserved_special_token_7|>": "<|eot|>"}
    moved = synthetic_tokenizer_json(S)
    for old, new in names.items():
        moved = moved.replace(json.dumps(old), json.dumps(new))
    results = by_name(Tokenizer.from_folder(write_tokenizer(tmp_path / "model", moved)))
    assert results[SPECIAL].status == "fail"
    assert "'<|eot|>': 128012" in results[SPECIAL].detail.split(" instead of ")[0]


def test_the_synthetic_tokenizer_is_checked_as_far_as_it_goes():
    results = by_name(synthetic())
    assert results[IDS].status == "skip"
    assert "not the released vocabulary" in results[IDS].detail
    assert {check.status for name, check in results.items() if name != IDS} == {"pass"}


@pytest.mark.parametrize(
    "backend",
    [
        lambda: Backend.from_str(synthetic_tokenizer_json(NANO)),
        lambda: train_tokenizer(["user and assistant say hello, hello; hello: hello! " * 8], 280),
    ],
    ids=["synthetic", "trained"],
)
def test_a_small_vocabulary_skips_only_what_is_about_the_release(backend):
    results = statuses(Tokenizer(backend()))
    assert {name for name, status in results.items() if status == "skip"} == {IDS, SPECIAL}
    assert "fail" not in results.values()


def byte_backend() -> Backend:
    vocabulary = {letter: byte for byte, letter in LETTER_OF_BYTE.items()}
    backend = Backend(models.BPE(vocab=vocabulary, merges=[]))
    backend.decoder = decoders.ByteLevel()
    return backend


def test_a_tokenizer_that_loses_text_fails():
    backend = byte_backend()  # and no pre-tokenizer: what is not ASCII has no token
    results = by_name(Tokenizer(backend))
    assert results["round trip of Unicode"].status == "fail"
    assert " instead of " in results["round trip of Unicode"].detail


def test_a_tokenizer_that_changes_text_fails():
    backend = Backend.from_str(synthetic_tokenizer_json(NANO))
    backend.normalizer = normalizers.NFC()
    assert statuses(Tokenizer(backend))["round trip of Unicode"] == "fail"
    backend.normalizer = normalizers.Strip()
    assert statuses(Tokenizer(backend))["round trip of whitespace"] == "fail"


def test_without_special_tokens_their_checks_do_not_apply():
    results = by_name(Tokenizer(byte_backend()))
    assert results["BOS once"].status == results["chat format"].status == "skip"
    assert "<|header_start|>" in results["chat format"].detail
