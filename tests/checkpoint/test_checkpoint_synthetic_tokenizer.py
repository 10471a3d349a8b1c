"""The synthetic tokenizer: ids where the release has them, pieces cut as it cuts them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_support import NANO, S, synthetic
from tokenizers import Tokenizer as Backend

from mobilemoe.checkpoint import Tokenizer, synthetic_tokenizer_json
from mobilemoe.checkpoint.byte_level import BYTE_ORDER
from mobilemoe.checkpoint.synthetic_tokenizer import special_ids
from mobilemoe.config import ModelConfig
from mobilemoe.data.tokenizer import SPECIAL_TOKENS
from mobilemoe.errors import MobileMoEError
from mobilemoe.presets import PRESETS

TOKENIZER = synthetic()
TINY = replace(NANO, vocab_size=512, bos_token_id=1, eos_token_id=(2, 3))


def split(text: str) -> list[str]:
    """Return the pieces of `text` that merging starts from."""
    backend = Backend.from_str(synthetic_tokenizer_json(S))
    spans = [span for _, span in backend.pre_tokenizer.pre_tokenize_str(text)]
    return [text[start:end] for start, end in spans]


def test_the_released_ids():
    assert {
        token: i for token, i in TOKENIZER.special_tokens.items() if "reserved" not in token
    } == {
        "<|begin_of_text|>": 128000,
        "<|end_of_text|>": 128001,
        "<|header_start|>": 128005,
        "<|header_end|>": 128006,
        "<|eot|>": 128008,
    }
    assert sorted(TOKENIZER.special_tokens.values()) == list(range(128000, 128256))
    assert TOKENIZER.encode("!,E", add_bos=False) == [0, 11, 36]  # bytes have the released ids too


def test_a_small_vocabulary_has_the_ids_of_the_corpus_tokenizer():
    assert synthetic(NANO).special_tokens == {name: i for i, name in enumerate(SPECIAL_TOKENS)}


@pytest.mark.parametrize("config", [*PRESETS.values(), TINY], ids=[*PRESETS, "tiny"])
def test_every_preset_gets_a_tokenizer_that_fits(config):
    text = synthetic_tokenizer_json(config)
    assert len(text.encode()) < 100_000
    assert text == synthetic_tokenizer_json(config)
    tokenizer = synthetic(config)
    vocabulary = json.loads(text)["model"]["vocab"]
    assert len(set(vocabulary.values())) == len(vocabulary) == tokenizer.token_count
    assert max(vocabulary.values()) < config.vocab_size
    assert tokenizer.encode("hi")[0] == tokenizer.bos_id == config.bos_token_id
    assert set(config.eos_token_id) <= set(tokenizer.special_tokens.values())
    assert set(SPECIAL_TOKENS) <= set(tokenizer.special_tokens)
    ids = tokenizer.encode("Grüße 🦖\x00\xff hello the world")
    assert tokenizer.decode(ids) == "Grüße 🦖\x00\xff hello the world"


@settings(max_examples=100, deadline=None)
@given(
    st.integers(261, 130_000),
    st.data(),
)
def test_any_ends_are_special_and_no_two_tokens_share_an_id(vocab_size, data):
    some_id = st.integers(0, vocab_size - 1)
    config = replace(
        NANO,
        vocab_size=vocab_size,
        bos_token_id=data.draw(some_id),
        eos_token_id=tuple(data.draw(st.lists(some_id, min_size=1, max_size=4))),
    )
    ids = special_ids(config)
    assert len(set(ids.values())) == len(ids)
    assert all(0 <= token_id < vocab_size for token_id in ids.values())
    assert {config.bos_token_id, *config.eos_token_id} <= set(ids.values())
    assert set(SPECIAL_TOKENS) <= set(ids)
    assert ids["<|begin_of_text|>"] == config.bos_token_id
    ends = [i for i in config.eos_token_id if i != config.bos_token_id]
    if len(set(ends)) > 1:
        assert ids["<|end_of_text|>"] == ends[0]
        assert ids["<|eot|>"] in ends


def test_sparse_ids_are_kept_on_loading(tmp_path):
    (tmp_path / "tokenizer.json").write_text(synthetic_tokenizer_json(S), encoding="utf-8")
    loaded = Tokenizer.from_folder(tmp_path)
    assert loaded.token_count < 2000
    assert loaded.has_token(128255) and not loaded.has_token(128256)
    assert not loaded.has_token(100_000)
    assert loaded.decode([71, 100_000, 72]) == "hi"


def test_too_small_a_vocabulary_is_refused():
    with pytest.raises(MobileMoEError, match="vocab_size is 260; a tokenizer needs at least 261"):
        synthetic_tokenizer_json(replace(TINY, vocab_size=260))
    assert synthetic(replace(TINY, vocab_size=261)).token_count == 261


def test_the_bytes_come_first_in_the_released_order():
    vocabulary = json.loads(synthetic_tokenizer_json(S))["model"]["vocab"]
    assert [i for _, i in sorted(zip(BYTE_ORDER, range(256), strict=True))] == [
        TOKENIZER.encode(chr(byte), add_bos=False)[0] if byte < 128 else i
        for byte, i in sorted(zip(BYTE_ORDER, range(256), strict=True))
    ]
    assert sorted(vocabulary.values())[:256] == list(range(256))


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("Hello, MobileMoE!", ["Hello", ",", " MobileMoE", "!"]),
        ("I'll we'VE it's 'so", ["I", "'ll", " we", "'VE", " it", "'s", " '", "so"]),
        ("12345678", ["123", "456", "78"]),
        ("a  b", ["a", " ", " b"]),
        ("x = [1]\n\n    y", ["x", " =", " [", "1", "]\n\n", "   ", " y"]),
        ("end.  \n \n next", ["end", ".", "  \n \n", " next"]),
        ("tail   ", ["tail", "   "]),
        ("<|eot|>", ["<|", "eot", "|>"]),
    ],
)
def test_text_is_cut_as_the_release_cuts_it(text, pieces):
    assert split(text) == pieces


def test_common_words_and_runs_of_blanks_are_one_token():
    for text in ("the", " the", "hello", " world", " return", "\n\n", " " * 8, " " * 16):
        assert len(TOKENIZER.encode(text, add_bos=False)) == 1, text


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_text_round_trips(text):
    ids = TOKENIZER.encode(text, special_tokens_in_text=False)
    assert TOKENIZER.decode(ids) == text


def test_other_programs_add_bos_and_ours_adds_it_once():
    backend = Backend.from_str(synthetic_tokenizer_json(S))
    assert backend.encode("hello").ids == TOKENIZER.encode("hello")
    assert TOKENIZER.encode("hello").count(128000) == 1


def test_bos_and_end_may_be_one_id():
    config = ModelConfig.preset("olmoe-1b-7b")
    assert config.eos_token_id == (config.bos_token_id,)
    assert special_ids(config)["<|begin_of_text|>"] == config.bos_token_id
