"""Prompts: real texts, the same ids every time, over the whole vocabulary."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from profile_support import CONFIG, write

from mobilemoe.checkpoint import Tokenizer, init_checkpoint, synthetic_tokenizer_json
from mobilemoe.profile.prompts import TEXTS, hashed_ids, prompt_source, real_ids, repeated_ids


def test_there_are_four_kinds_of_text():
    assert set(TEXTS) == {"knowledge", "code", "maths", "chat"}
    assert all(len(text) > 800 for text in TEXTS.values())


def test_with_a_tokenizer_the_texts_are_encoded_and_cycled(tmp_path):
    tokenizer_json = synthetic_tokenizer_json(CONFIG)
    checkpoint = init_checkpoint(tmp_path, CONFIG, "int4", 0, tokenizer_json=tokenizer_json)
    tokenizer = Tokenizer.from_folder(tmp_path)
    once = [i for text in TEXTS.values() for i in tokenizer.encode(text, add_bos=False)]
    assert real_ids(checkpoint, len(once) + 7) == once + once[:7]
    assert "tokenizer" in prompt_source(checkpoint)


def test_without_one_the_words_are_hashed(tmp_path):
    checkpoint = write(tmp_path)
    ids = real_ids(checkpoint, 5000)
    assert len(ids) == 5000
    assert ids[:50] == hashed_ids("".join(TEXTS.values()), CONFIG.vocab_size)[:50]
    assert "hashed" in prompt_source(checkpoint)


def test_hashed_ids_are_those_of_any_other_machine():
    ids = hashed_ids("A lighthouse, a light.", 128_256)
    assert ids == [24203, 30541, 23150, 80019, 109695, 15938]


@settings(max_examples=50)
@given(st.integers(2, 300_000))
def test_hashed_ids_spread_over_the_vocabulary(vocab_size):
    ids = hashed_ids("".join(TEXTS.values()), vocab_size)
    assert all(0 <= token_id < vocab_size for token_id in ids)
    quarters = {4 * token_id // vocab_size for token_id in ids}
    assert len(quarters) == min(4, vocab_size)
    assert len(set(ids)) > min(vocab_size, 600) / 2


def test_a_word_has_one_id_wherever_it_stands():
    first, _, third = hashed_ids(" same other same", 50_000)
    assert first == third


def test_the_repeated_prompt_is_one_token():
    assert repeated_ids([7, 8, 9], 4) == [7, 7, 7, 7]
