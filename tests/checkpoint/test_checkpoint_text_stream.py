"""The byte alphabet, and text from byte-level tokens one by one.

Equal to the library's, never half a character, and no more work than there are bytes.
"""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Backend

from mobilemoe.checkpoint import TextStream, Tokenizer
from mobilemoe.checkpoint.byte_level import BYTE_ORDER, LETTER_OF_BYTE, bytes_of, spell
from mobilemoe.errors import MobileMoEError

SPECIAL, PLAIN_ADDED, FOREIGN = 300, 301, 302
UNKNOWN = [256, 299, 303, 128_000, 2**32 - 1]


def byte_backend() -> Backend:
    """Return a tokenizer in which id b is byte b; 300 is special, 301 and 302 are added tokens."""
    vocabulary = {LETTER_OF_BYTE[byte]: byte for byte in range(256)}
    vocabulary |= {"<|s|>": SPECIAL, "é€": PLAIN_ADDED, "日 本": FOREIGN}
    backend = Backend(models.BPE(vocab=vocabulary, merges=[]))
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<|s|>"])
    backend.add_tokens([AddedToken("é€", special=False), AddedToken("日 本", special=False)])
    return backend


BACKEND = byte_backend()
TOKENIZER = Tokenizer(BACKEND)
BYTE_IDS = st.one_of(
    st.integers(0, 255),
    st.sampled_from([0x80, 0xBF, 0xC0, 0xC3, 0xE0, 0xE2, 0xED, 0xEF, 0xF0, 0xF4, 0xFF]),
)
ANY_IDS = st.one_of(
    BYTE_IDS, st.sampled_from([SPECIAL, PLAIN_ADDED, FOREIGN]), st.sampled_from(UNKNOWN)
)
CHARACTERS = st.characters(exclude_categories=["Cs"])


def streamed(ids) -> list[str]:
    stream = TOKENIZER.stream()
    return [*[stream.push(token_id) for token_id in ids], stream.flush()]


def test_the_alphabet_is_that_of_the_library():
    letters = [LETTER_OF_BYTE[byte] for byte in range(256)]
    assert sorted(letters) == sorted(pre_tokenizers.ByteLevel.alphabet())
    assert sorted(BYTE_ORDER) == list(range(256))
    split = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    for byte in range(0x80):
        ((spelled, _),) = split.pre_tokenize_str(chr(byte))
        assert spelled == LETTER_OF_BYTE[byte]
    ((spelled, _),) = split.pre_tokenize_str("Grüße 日本 🦖")
    assert spelled == spell("Grüße 日本 🦖".encode())


@given(st.binary(max_size=30))
def test_what_is_spelled_is_read_back(raw):
    assert bytes_of(spell(raw)) == raw


def test_a_token_outside_the_alphabet_stands_for_itself():
    assert bytes_of("日 本") == "日 本".encode()
    assert bytes_of("Ġ€") == "Ġ€".encode()
    assert TOKENIZER.decode([FOREIGN]) == "日 本"


@settings(max_examples=400, deadline=None)
@given(st.lists(ANY_IDS, max_size=40))
def test_any_ids_stream_to_what_the_library_decodes(ids):
    assert "".join(streamed(ids)) == BACKEND.decode(ids, skip_special_tokens=True)


def test_every_short_run_of_awkward_bytes_streams_to_what_the_library_decodes():
    awkward = [0x00, 0x41, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC1, 0xC2, 0xE0, 0xED, 0xEF]
    awkward += [0xF0, 0xF4, 0xF5, 0xFF]
    for length in (1, 2, 3):
        for ids in itertools.product(awkward, repeat=length):
            assert "".join(streamed(ids)) == BACKEND.decode(list(ids)), ids
    for ids in itertools.product(
        [0xED, 0xF0, 0xF4, 0xE2], [0x80, 0x8F, 0x90, 0xA0], awkward, [0x80, 0x41]
    ):
        assert "".join(streamed(ids)) == BACKEND.decode(list(ids)), ids


@settings(max_examples=200, deadline=None)
@given(st.text(CHARACTERS, max_size=30))
def test_a_character_appears_with_its_last_byte_and_not_before(text):
    stream = TOKENIZER.stream()
    for character in text:
        *first, last = character.encode()
        assert [stream.push(byte) for byte in first] == [""] * len(first)
        assert stream.push(last) == character
        assert stream.pending == b""
    assert stream.flush() == ""


@settings(max_examples=200, deadline=None)
@given(st.lists(BYTE_IDS, max_size=60))
def test_at_most_three_bytes_wait_and_each_token_is_read_once(ids):
    """So n bytes cost n plus at most three per token, whatever the bytes are."""
    read = []

    def token_bytes(token_id: int) -> bytes:
        read.append(token_id)
        return bytes([token_id])

    stream = TextStream(token_bytes)
    for token_id in ids:
        stream.push(token_id)
        assert len(stream.pending) <= 3
    assert read == ids


@pytest.mark.parametrize("run", [[0x80], [0xFF], [0xF0, 0x9F], [0xE2, 0x82, 0xE2], [0xC3, 0x28]])
def test_a_long_run_of_broken_bytes_is_given_out_as_it_comes(run):
    stream = TOKENIZER.stream()
    ids = run * 1000
    shown = [stream.push(token_id) for token_id in ids]
    assert len("".join(shown)) >= len(ids) // 2 - 3, "held back instead of shown"
    assert "".join([*shown, stream.flush()]) == BACKEND.decode(ids)


@pytest.mark.parametrize("token_id", [-1, 2**32, 1.5, "a"])
def test_what_is_no_id_is_refused(token_id):
    for decode in (TOKENIZER.stream().push, lambda token_id: TOKENIZER.decode([token_id])):
        with pytest.raises(MobileMoEError, match="cannot be decoded"):
            decode(token_id)
