"""Text to ids and back, whole and one id at a time."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models
from tokenizers import Tokenizer as Backend

from mobilemoe.checkpoint import Tokenizer
from mobilemoe.checkpoint.tokenizer import MAX_TOKENIZER_BYTES
from mobilemoe.data import train_tokenizer
from mobilemoe.errors import CheckpointError, MobileMoEError

TEXTS = [
    "the cat sat on the mat, and the dog sat on the cat. " * 3,
    "def add(a , b):\n    return a + b . real\n\n" * 3,
    "Grüße aus Köln, naïve façade; 日本語のテキスト 🎉🎉 family: 👨‍👩‍👧 " * 3,
]
VOCAB_SIZE = 330
BACKEND = train_tokenizer(TEXTS, VOCAB_SIZE)
TOKENIZER = Tokenizer(BACKEND)
LIBRARY = train_tokenizer(TEXTS, VOCAB_SIZE)  # untouched by our class
CHARACTERS = st.characters(exclude_categories=["Cs"])
TEXT = st.text(CHARACTERS, max_size=40).filter(lambda text: "<|" not in text)  # no special tokens
IDS = st.lists(st.integers(0, VOCAB_SIZE - 1), max_size=40)
BOS = 0


def streamed(ids: list[int]) -> list[str]:
    stream = TOKENIZER.stream()
    return [*[stream.push(token_id) for token_id in ids], stream.flush()]


@settings(max_examples=200, deadline=None)
@given(TEXT)
@example("a . b , c")
@example("  x = [ 1 , 2 ] ; do n't  's\t\r\n")
@example("\x00\ufffd\u200d")
def test_any_text_round_trips(text):
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


@settings(max_examples=200, deadline=None)
@given(TEXT)
@example("👨‍👩‍👧 日本 é")
def test_the_stream_gives_whole_characters_that_join_to_the_text(text):
    pieces = streamed(TOKENIZER.encode(text))
    assert "".join(pieces) == text
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)


@settings(max_examples=300, deadline=None)
@given(IDS)
def test_the_stream_of_any_ids_joins_to_their_decoding(ids):
    """Also for what an untrained model says: half characters, specials in between."""
    assert "".join(streamed(ids)) == TOKENIZER.decode(ids)


def test_a_character_of_several_tokens_appears_with_its_last_one():
    ids = TOKENIZER.encode("x🦖y", add_bos=False)
    pieces = streamed(ids)
    parts = len(ids) - 2
    assert parts > 1  # the lizard is not in the vocabulary
    assert pieces == ["x", *[""] * (parts - 1), "🦖", "y", ""]


def test_half_a_character_at_the_end_is_given_up_only_by_flush():
    ids = TOKENIZER.encode("x🦖", add_bos=False)[:-1]
    pieces = streamed(ids)
    assert pieces[:-1] == ["x", *[""] * (len(ids) - 1)]
    assert pieces[-1] == TOKENIZER.decode(ids)[1:]
    assert set(pieces[-1]) == {"\ufffd"}


def test_flush_empties_the_stream():
    stream = TOKENIZER.stream()
    for token_id in TOKENIZER.encode("x🦖")[:-1]:
        stream.push(token_id)
    assert stream.flush() != ""
    assert stream.flush() == ""


def test_bos_comes_first_once_and_only_on_request():
    assert TOKENIZER.encode("cat")[0] == BOS
    assert TOKENIZER.encode("cat")[1:] == TOKENIZER.encode("cat", add_bos=False)
    assert BOS not in TOKENIZER.encode("cat", add_bos=False)
    assert TOKENIZER.encode("") == [BOS]


def test_special_tokens_in_text_are_one_id_and_skipped_on_decoding():
    ids = TOKENIZER.encode("<|begin_of_text|>cat<|eot|>", add_bos=False)
    assert ids[0] == BOS
    assert ids[-1] == 4
    assert TOKENIZER.decode(ids) == "cat"
    assert TOKENIZER.decode(ids, skip_special_tokens=False) == "<|begin_of_text|>cat<|eot|>"


def test_a_saved_tokenizer_is_the_same(tmp_path):
    (tmp_path / "tokenizer.json").write_text(BACKEND.to_str(), encoding="utf-8")
    loaded = Tokenizer.from_folder(tmp_path)
    for text in TEXTS:
        assert loaded.encode(text) == TOKENIZER.encode(text)
        assert loaded.decode(loaded.encode(text)) == text


def test_clean_up_in_the_settings_is_ignored(tmp_path):
    """The released settings ask for it; it would turn `a . b , c` into `a. b, c`."""
    (tmp_path / "tokenizer.json").write_text(BACKEND.to_str(), encoding="utf-8")
    settings_path = tmp_path / "tokenizer_config.json"
    settings_path.write_text('{"clean_up_tokenization_spaces": true}')
    loaded = Tokenizer.from_folder(tmp_path)
    assert loaded.decode(loaded.encode("a . b , c")) == "a . b , c"


def test_rejects_text_that_is_no_unicode():
    with pytest.raises(MobileMoEError, match="cannot be written as UTF-8"):
        TOKENIZER.encode("half a pair: \ud83e")


def test_rejects_a_missing_file(tmp_path):
    with pytest.raises(CheckpointError, match=r"has no tokenizer\.json"):
        Tokenizer.from_folder(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"model": 3}', b"\xff\xfe"])
def test_rejects_a_file_that_is_no_tokenizer(tmp_path, content):
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"tokenizer.json: is not a tokenizer"):
        Tokenizer.from_folder(tmp_path)


PARTS = st.one_of(TEXT, st.sampled_from(["<|eot|>", "<|header_start|>", "<|eot", "|>", "<|"]))


@settings(max_examples=200, deadline=None)
@given(st.lists(PARTS, max_size=6).map("".join))
def test_ids_are_those_of_the_library_with_special_tokens_and_without(text):
    LIBRARY.encode_special_tokens = False
    assert TOKENIZER.encode(text, add_bos=False) == LIBRARY.encode(text).ids
    LIBRARY.encode_special_tokens = True
    plain = TOKENIZER.encode(text, add_bos=False, special_tokens_in_text=False)
    assert plain == LIBRARY.encode(text).ids


def test_of_two_special_tokens_the_longer_one_is_read():
    names = ["<a", "<a>", "<", "a>"]
    library, backend = (train_tokenizer(TEXTS, VOCAB_SIZE) for _ in range(2))
    library.add_special_tokens(names)
    backend.add_special_tokens(names)
    for text in ("<a>", "<a<a><", "x<aa>", "a>>"):
        assert Tokenizer(backend).encode(text, add_bos=False) == library.encode(text).ids


def test_special_tokens_are_text_where_they_are_not_wanted():
    ids = TOKENIZER.encode("<|eot|>", special_tokens_in_text=False)
    assert ids[0] == BOS
    assert not set(ids[1:]) & set(TOKENIZER.special_tokens.values())
    assert TOKENIZER.decode(ids) == "<|eot|>"


def test_bos_in_the_text_is_not_doubled():
    assert TOKENIZER.encode("<|begin_of_text|>cat") == TOKENIZER.encode("cat")
    assert TOKENIZER.encode("<|begin_of_text|>") == [BOS]


def test_without_bos_in_the_vocabulary_none_is_added():
    backend = Backend(models.BPE(vocab={"a": 0}, merges=[]))
    backend.decoder = decoders.ByteLevel()
    tokenizer = Tokenizer(backend)
    assert tokenizer.bos_id is None
    assert tokenizer.encode("aa") == [0, 0]
    assert tokenizer.split("aa") == ["aa"]


def test_truncation_and_padding_of_the_file_are_ignored(tmp_path):
    """Otherwise the end of a long prompt would vanish without a word."""
    document = json.loads(BACKEND.to_str())
    document["truncation"] = {
        "direction": "Right",
        "max_length": 3,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    document["padding"] = {
        "strategy": {"Fixed": 64},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 7,
        "pad_type_id": 0,
        "pad_token": "!",
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    assert len(Backend.from_file(str(tmp_path / "tokenizer.json")).encode(TEXTS[0]).ids) == 64
    assert Tokenizer.from_folder(tmp_path).encode(TEXTS[0]) == TOKENIZER.encode(TEXTS[0])


@pytest.mark.parametrize(
    ("decoder", "name"),
    [
        (decoders.WordPiece(), "WordPiece"),
        (decoders.Metaspace(), "Metaspace"),
        (decoders.Sequence([decoders.ByteLevel(), decoders.Fuse()]), "Sequence"),
        (None, "none"),
    ],
)
def test_a_tokenizer_that_is_not_byte_level_is_refused(tmp_path, decoder, name):
    document = json.loads(BACKEND.to_str())
    document["decoder"] = decoder and json.loads(decoder.__getstate__())
    (tmp_path / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(CheckpointError, match=f"decoder is {name}; allowed: ByteLevel") as caught:
        Tokenizer.from_folder(tmp_path)
    assert str(tmp_path) in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("flag", ["lstrip", "rstrip", "single_word"])
def test_a_special_token_that_takes_more_than_itself_is_refused(flag):
    backend = train_tokenizer(TEXTS, VOCAB_SIZE)
    backend.add_special_tokens([AddedToken("<|more|>", **{flag: True})])
    with pytest.raises(CheckpointError, match=r"<\|more\|>' has lstrip, rstrip or single_word"):
        Tokenizer(backend)


def test_rejects_a_file_that_is_far_too_large(tmp_path):
    with (tmp_path / "tokenizer.json").open("wb") as file:
        file.truncate(MAX_TOKENIZER_BYTES + 1)  # sparse: it takes no room
    with pytest.raises(CheckpointError, match="is larger than"):
        Tokenizer.from_folder(tmp_path)
