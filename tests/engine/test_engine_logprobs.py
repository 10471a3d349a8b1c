"""Log-probabilities: of one token, of the likeliest, and of a whole prompt in chunks."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from engine_support import INT4_FOLDERS, SMALL, write_random
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mobilemoe.engine import load
from mobilemoe.engine.logprobs import CHUNK, token_logprob
from mobilemoe.errors import MobileMoEError

IDS = np.random.default_rng(3).integers(0, 512, 2 * CHUNK + 9).tolist()


@pytest.fixture(scope="module")
def model():
    return load(INT4_FOLDERS[0], threads=2, context=len(IDS))


def naive(logits_V, token_id: int) -> float:
    """Return the log-probability, one exponential at a time in float64."""
    largest = float(max(logits_V))
    total = math.fsum(math.exp(float(x) - largest) for x in logits_V)
    return float(logits_V[token_id]) - largest - math.log(total)


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    size=st.integers(1, 600),
    width=st.sampled_from([0.0, 1.0, 30.0, 1e30]),
    top=st.integers(0, 700),
)
@example(seed=4535, size=128, width=1e30, top=0)  # two equal logits, so large that log 2 is nothing
def test_values_and_alternatives_follow_the_definition(seed, size, width, top):
    rng = np.random.default_rng(seed)
    x_V = (width * np.round(rng.normal(size=size), 1)).astype(np.float32)
    token_id = int(rng.integers(size))
    scored = token_logprob(x_V, token_id, top)
    assert scored.logprob == pytest.approx(naive(x_V, token_id), abs=2e-6, rel=1e-12)
    order = sorted(range(size), key=lambda i: (-x_V[i], i))[:top]
    assert [i for i, _ in scored.top_logprobs] == order
    assert dict(scored.top_logprobs).get(token_id, scored.logprob) == scored.logprob


def test_a_prompt_is_scored_as_its_logits_say(model):
    logits_TV = model.logits(IDS)
    scored = model.logprobs(IDS, top=3)
    assert [token.id for token in scored] == IDS[1:]
    for token, logits_V in zip(scored, logits_TV[:-1], strict=True):
        assert token == token_logprob(logits_V, token.id, 3)


@pytest.mark.parametrize("start", [1, 2, CHUNK, CHUNK + 1, len(IDS) - 1, len(IDS)])
def test_a_start_leaves_the_front_out_and_changes_no_bit(model, start):
    assert model.logprobs(IDS, 1, start) == model.logprobs(IDS, 1)[start - 1 :]


def test_the_prompt_may_have_one_token_more_than_the_context(model):
    assert len(model.logprobs([*IDS, 5])) == len(IDS)
    with pytest.raises(MobileMoEError, match=f"prompt has {len(IDS) + 2} tokens; allowed: at most"):
        model.logprobs([*IDS, 5, 6])


def test_one_token_has_nothing_to_score_and_costs_nothing(model):
    session = model.session()
    assert model.logprobs([7], session=session) == []
    assert session.position == 0


def test_scoring_endings_of_one_beginning_reads_it_once(model):
    session = model.session()
    beginning, endings = IDS[:40], [IDS[40:50], IDS[50:53], IDS[53:60]]
    calls, append = [], session.append
    session.append = lambda ids: calls.append(len(ids)) or append(ids)
    for ending in endings:
        ids = beginning + ending
        scored = model.logprobs(ids, start=len(beginning), session=session)
        assert scored == model.logprobs(ids)[len(beginning) - 1 :]
        assert session.ids == ids[:-1]
        assert session.routing().shape[1] == len(ending)
        assert calls == [39], "its last token is read with each ending, for the logits"


def test_generation_goes_on_from_a_scored_prompt(model):
    session, prompt = model.session(), IDS[:20]
    model.logprobs(prompt, session=session)
    tokens = list(model.generate(prompt, 1, session=session))
    assert session.routing().shape[1] == 1
    assert tokens == list(model.generate(prompt, 1))


@pytest.mark.parametrize(
    ("prompt", "arguments", "message"),
    [
        ([], {}, "prompt is"),
        ([1, 512], {}, "token id is 512"),
        ([1, 2], {"start": 0}, "start is 0; allowed: 1 to 2"),
        ([1, 2], {"start": 3}, "start is 3"),
        ([1, 2], {"start": 1.0}, "start is 1.0"),
        ([1, 2], {"top": -1}, "top is -1; allowed: 0 to 512"),
        ([1, 2], {"top": 513}, "top is 513"),
        ([1, 2], {"session": 5}, "session is 5; allowed: a session of this model"),
    ],
)
def test_bad_requests_are_refused_with_a_hint(model, prompt, arguments, message):
    with pytest.raises(MobileMoEError, match=message) as caught:
        model.logprobs(prompt, **arguments)
    assert caught.value.hint


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_the_logits_of_a_long_prompt_never_live_at_once(tmp_path):
    config = replace(SMALL, vocab_size=65_536, num_hidden_layers=1)
    write_random(tmp_path / "model", config)
    code = """
import sys
from mobilemoe.engine import load
from mobilemoe.profile.memory import peak_rss_mib
model = load(sys.argv[1], threads=1)
model.logprobs([1, 2, 3])
before = peak_rss_mib()
model.logprobs(list(range(300)))
print(peak_rss_mib() - before)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "model")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 40, "all 299 rows would be 75 MiB"
