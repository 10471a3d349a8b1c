"""generate: greedy, seeds, ends, stop strings, text, refusals."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pytest
from engine_support import INT4_FOLDERS
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from mobilemoe.engine import Token, load
from mobilemoe.errors import CheckpointError, MobileMoEError

FOLDER = INT4_FOLDERS[0]
PROMPT = [1, 5, 9]


@pytest.fixture(scope="module")
def model():
    return load(FOLDER, threads=2, context=64)


@pytest.fixture(scope="module")
def text_model(tmp_path_factory):
    """Return the tiny model with a byte tokenizer: id 10 + b is byte b."""
    folder = tmp_path_factory.mktemp("text")
    for name in ("config.json", "model.safetensors"):
        shutil.copy(FOLDER / name, folder)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: 10 + i for i, character in enumerate(alphabet)}
    vocabulary["<|begin_of_text|>"] = 1
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<|begin_of_text|>"])
    backend.save(str(folder / "tokenizer.json"))
    return load(folder, threads=2, context=64)


def test_greedy_equals_the_argmax_of_logits(model):
    tokens = list(model.generate(PROMPT, max_new_tokens=6))
    ids = PROMPT + [token.id for token in tokens]
    logits_TV = model.logits(ids)
    assert np.argmax(logits_TV[2:-1], axis=-1).tolist() == ids[3:]
    for t, token in enumerate(tokens, start=2):
        x_V = logits_TV[t].astype(np.float64)
        assert token.logprob == pytest.approx(x_V[token.id] - np.log(np.exp(x_V).sum()), abs=1e-6)
    assert [token.finish_reason for token in tokens] == [None] * 5 + ["length"]
    assert all(token.text == "" for token in tokens)


def test_seeds_reproduce_and_differ(model):
    def draw(seed):
        stream = model.generate(PROMPT, 12, temperature=1.0, top_p=0.95, top_k=100, seed=seed)
        return [token.id for token in stream]

    assert draw(7) == draw(7)
    assert len({tuple(draw(seed)) for seed in range(5)}) == 5


def test_every_end_token_ends(text_model):
    rare = set()
    for seed in range(40):
        *_, last = text_model.generate(PROMPT, 60, temperature=50.0, seed=seed)
        if last.finish_reason == "stop":
            rare.add(last.id)
            assert set(last.text) <= {"\N{REPLACEMENT CHARACTER}"}  # what was left of bytes
    assert rare == {2, 3} == set(text_model.config.eos_token_id)


def test_a_full_context_ends(model):
    tokens = list(model.generate([4] * 60, max_new_tokens=50))
    assert len(tokens) == 5 and tokens[-1].finish_reason == "context"
    (only,) = model.generate([4] * 64, max_new_tokens=50)
    assert only.finish_reason == "context"


def test_no_new_tokens_gives_nothing(model):
    assert list(model.generate(PROMPT, max_new_tokens=0)) == []


def test_text_is_the_decoded_ids(text_model):
    tokens = list(text_model.generate("hello", 30, temperature=1.0, seed=3))
    ids = [token.id for token in tokens]
    assert "".join(token.text for token in tokens) == text_model.tokenizer.decode(ids)


def test_bos_is_added_once(text_model):
    first, second = (
        [token.id for token in text_model.generate(text, 5)]
        for text in ("hi", "<|begin_of_text|>hi")
    )
    ids = text_model.tokenizer.encode("hi")
    assert ids[0] == text_model.config.bos_token_id
    assert first == second == [token.id for token in text_model.generate(ids, 5)]


def test_stop_string_ends_and_is_not_shown(text_model):
    def run(**more):
        return list(text_model.generate("hello", 40, temperature=1.0, seed=3, **more))

    free = run()
    text = "".join(token.text for token in free)
    stop = text[10:13]
    at = text.find(stop)
    stopped = run(stop=["never this", stop])
    assert "".join(token.text for token in stopped) == text[:at]
    assert stopped[-1].finish_reason == "stop"
    assert [token.id for token in stopped] == [token.id for token in free[: len(stopped)]]
    assert len(stopped) < len(free)


def test_a_given_session_continues_and_computes_only_what_is_new(model):
    session = model.session()
    first = list(model.generate(PROMPT, 5, 1.0, seed=2, session=session))
    told = PROMPT + [token.id for token in first]
    assert session.ids == told[:-1], "the last token has not been read"
    longer = [*told, 7, 8]
    (token,) = model.generate(longer, 1, session=session)
    assert session.routing().shape[1] == 3, "the last token and the two new ones"
    assert (token,) == tuple(model.generate(longer, 1))
    other = [*longer[:6], 100]
    (token,) = model.generate(other, 1, session=session)
    assert session.routing().shape[1] == 1
    assert (token,) == tuple(model.generate(other, 1))
    assert session.ids == other


def test_a_prompt_read_in_chunks_is_generated_from_without_reading_it_again(model):
    session, prompt = model.session(), list(range(20))
    for _ in session.prefill(prompt, chunk=6):
        pass
    assert list(model.generate(prompt, 3, session=session)) == list(model.generate(prompt, 3))


def test_a_session_serves_after_a_generation_that_failed_or_was_left(model):
    session = model.session()
    list(model.generate(PROMPT, 4, session=session))
    before = session.ids
    with pytest.raises(MobileMoEError):
        list(model.generate([*PROMPT, 512], session=session))
    with pytest.raises(MobileMoEError):
        model.generate([1] * 65, session=session)
    assert session.ids == before, "nothing is lost"
    next(iter(model.generate([*PROMPT, 8], 9, session=session)))
    assert session.ids == [*PROMPT, 8]
    again = list(model.generate(PROMPT, 4, session=session))
    assert again == list(model.generate(PROMPT, 4))


def test_interleaved_generations_keep_to_their_own_sessions(model):
    prompts = [[i, i + 1, i + 2] for i in range(0, 40, 8)]
    alone = [list(model.generate(ids, 6, 1.0, seed=4)) for ids in prompts]
    together = zip(
        *(model.generate(ids, 6, 1.0, seed=4, session=model.session()) for ids in prompts),
        strict=True,
    )
    assert list(map(list, zip(*together, strict=True))) == alone


def test_two_generations_in_one_session_are_an_error(model):
    session = model.session()
    first = model.generate(PROMPT, 9, session=session)
    next(first)
    next(iter(model.generate([9, 8, 7, 6], 9, session=session)))
    with pytest.raises(MobileMoEError, match="position is 4; allowed: 3") as caught:
        next(first)
    assert caught.value.hint


def test_a_session_of_another_model_is_refused(model):
    other = load(FOLDER, threads=1, context=64).session()
    with pytest.raises(MobileMoEError, match="allowed: a session of this model") as caught:
        model.generate(PROMPT, session=other)
    assert caught.value.hint


def test_likeliest_alternatives_come_with_each_token(model):
    plain, told = (list(model.generate(PROMPT, 4, logprobs=n)) for n in (0, 5))
    for before, token in zip(plain, told, strict=True):
        assert before.top_logprobs == ()
        assert len(token.top_logprobs) == 5
        assert token.top_logprobs[0] == (token.id, token.logprob), "greedy takes the likeliest"
        values = [logprob for _, logprob in token.top_logprobs]
        assert values == sorted(values, reverse=True)


def test_the_repetition_penalty_reaches_prompt_and_new_tokens(model):
    """So strong that nothing of the context is taken again while logits are positive."""
    prompt = [int(np.argmax(model.logits(PROMPT)[-1])), *PROMPT]
    tokens = [t.id for t in model.generate(prompt, 30, repetition_penalty=1e9)]
    assert len({*prompt, *tokens}) == len(prompt) + len(tokens)
    free = [t.id for t in model.generate(prompt, 30)]
    assert len({*prompt, *free}) < len(prompt) + len(free)


def test_min_p_leaves_the_likeliest(model):
    greedy = [token.id for token in model.generate(PROMPT, 8)]
    kept = [token.id for token in model.generate(PROMPT, 8, 1.0, min_p=1.0, seed=3)]
    assert kept == greedy


@pytest.mark.parametrize(
    ("prompt", "arguments", "message"),
    [
        ([], {}, "prompt is"),
        ("", {}, "prompt is ''"),
        (b"hi", {}, "prompt is b'hi'; allowed: text or token ids"),
        ([1] * 65, {}, "prompt has 65 tokens; allowed: at most the context, 64"),
        (PROMPT, {"max_new_tokens": -1}, "max_new_tokens is -1"),
        (PROMPT, {"max_new_tokens": 1.5}, "max_new_tokens is 1.5"),
        (PROMPT, {"temperature": math.nan}, "temperature is nan"),
        (PROMPT, {"temperature": -1}, "temperature is -1"),
        (PROMPT, {"top_p": 0}, "top_p is 0"),
        (PROMPT, {"top_p": 1.5}, "top_p is 1.5"),
        (PROMPT, {"top_k": -2}, "top_k is -2"),
        (PROMPT, {"seed": -1}, "seed is -1"),
        (PROMPT, {"stop": [""]}, "stop is ''"),
        (PROMPT, {"min_p": 2}, "min_p is 2"),
        (PROMPT, {"repetition_penalty": 0}, "repetition_penalty is 0"),
        (PROMPT, {"logprobs": -1}, "logprobs is -1; allowed: 0 to 512"),
        (PROMPT, {"logprobs": True}, "logprobs is True"),
        (PROMPT, {"session": 1}, "session is 1; allowed: a session of this model"),
    ],
)
def test_bad_requests_are_refused_at_the_call(text_model, prompt, arguments, message):
    with pytest.raises(MobileMoEError, match=message) as caught:
        text_model.generate(prompt, **arguments)
    assert caught.value.hint


def test_ids_outside_the_vocabulary_are_refused(model):
    with pytest.raises(MobileMoEError, match="token id is 512"):
        list(model.generate([512]))


def test_text_without_a_tokenizer_is_refused(model):
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        model.generate("hello")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        model.generate(PROMPT, stop=["x"])


def test_tokens_are_plain_frozen_values(model):
    (token,) = model.generate(PROMPT, max_new_tokens=1)
    assert token == Token(token.id, "", token.logprob, "length")
    assert json.dumps(token.id)
    with pytest.raises(AttributeError):
        token.id = 1
