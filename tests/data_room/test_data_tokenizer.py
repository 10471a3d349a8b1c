"""The tokenizer: exact, deterministic, with fixed special ids; and the chat format's mask."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from mobilemoe.data import SPECIAL_TOKENS, Conversation, Corpus, Dataset, train_tokenizer
from mobilemoe.data.tokenizer import BEGIN_OF_TEXT, END_OF_TEXT, sample_texts
from mobilemoe.data.tokens import encode_conversations, encode_documents
from mobilemoe.errors import MobileMoEError


@pytest.fixture(scope="session")
def tokenizer(built: Dataset) -> Tokenizer:
    """Return the tokenizer of the small data set."""
    return built.tokenizer


def test_special_ids_are_fixed(tokenizer: Tokenizer) -> None:
    expected = ["<|begin_of_text|>", "<|end_of_text|>", "<|header_start|>", "<|header_end|>"]
    assert list(SPECIAL_TOKENS) == [*expected, "<|eot|>"]
    assert [tokenizer.token_to_id(token) for token in SPECIAL_TOKENS] == [0, 1, 2, 3, 4]
    assert tokenizer.get_vocab_size() == 1024


def test_round_trip_of_everything(built: Dataset) -> None:
    @settings(max_examples=200, deadline=None)
    @given(st.text(st.characters(exclude_categories=("Cs",)), max_size=60))
    def check(text: str) -> None:
        ids = built.tokenizer.encode(text).ids
        assert built.tokenizer.decode(ids, skip_special_tokens=False) == text

    check()
    for text in ("\u0301a\r\n \t\n  x", "🙂\u200d漢字 \x00", "    \n\n\t\ty = 1\n", " a  b   c"):
        check.hypothesis.inner_test(text)


def test_digits_are_single_tokens(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("1234567").tokens == list("1234567")


def test_indentation_is_one_token_and_words_keep_their_space(tokenizer: Tokenizer) -> None:
    inside = tokenizer.encode(" return").ids
    block = tokenizer.encode(":\n        return").ids
    assert block[-len(inside) :] == inside
    assert len(block) == 2 + len(inside)


def test_header_gap_is_one_token_with_and_without_text(tokenizer: Tokenizer) -> None:
    (gap,) = tokenizer.encode("\n\n").ids
    for text in ("Answer", "12", "(x)", " x"):
        whole = tokenizer.encode(f"<|header_end|>\n\n{text}").ids
        assert whole == [3, gap, *tokenizer.encode(text).ids]


def test_training_is_deterministic(corpus: Corpus) -> None:
    texts = [document.text for document in corpus.documents[::9]]
    first, second = (train_tokenizer(texts, 600).to_str() for _ in range(2))
    assert first == second
    assert first != train_tokenizer(texts[::-2], 600).to_str()


def test_too_little_text_or_room_is_refused() -> None:
    with pytest.raises(MobileMoEError, match="of 4096 vocabulary entries"):
        train_tokenizer(["a short text"], 4096)
    with pytest.raises(MobileMoEError, match="allowed: 262"):
        train_tokenizer(["text"], 261)


def test_sample_is_even_and_bounded() -> None:
    texts = ["x" * 10] * 50 + ["y" * 10] * 50
    assert sample_texts(texts, 5000) == texts
    sample = sample_texts(texts, 200)
    assert len(sample) == 20 and sample.count("x" * 10) == 10


def test_documents_stand_between_special_tokens(tokenizer: Tokenizer) -> None:
    stream = encode_documents(tokenizer, ["a b", "", "c"])
    ids = [tokenizer.encode(text).ids for text in ("a b", "", "c")]
    expected = [i for text in ids for i in (BEGIN_OF_TEXT, *text, END_OF_TEXT)]
    assert stream.dtype == np.uint16
    assert stream.tolist() == expected


def test_mask_covers_exactly_the_assistant(tokenizer: Tokenizer) -> None:
    talks = [
        Conversation("math", "What is 1 + 1?", "1 + 1 = 2\nAnswer: 2", "a"),
        Conversation("code", "Finish:\n\ndef f():", "return 'é'", "b"),
    ]
    encoded = encode_conversations(tokenizer, talks)
    assert len(encoded) == 2
    for index, talk in enumerate(talks):
        ids, learnt = encoded.conversation(index)
        rendered = (
            f"<|begin_of_text|><|header_start|>user<|header_end|>\n\n{talk.user}<|eot|>"
            f"<|header_start|>assistant<|header_end|>\n\n{talk.assistant}<|eot|>"
        )
        assert ids.tolist() == tokenizer.encode(rendered).ids  # what an engine would feed
        text = tokenizer.decode(ids[learnt].tolist(), skip_special_tokens=False)
        assert text == f"{talk.assistant}<|eot|>"
        assert learnt.argmin() == 0 and np.diff(learnt.astype(int)).tolist().count(1) == 1


def test_texts_with_special_tokens_are_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(MobileMoEError, match=r"<\|eot\|>"):
        encode_documents(tokenizer, ["fine", "ends here<|eot|>and goes on"])
