"""A depth that is restored is the depth that was prepared, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from profile_support import CONFIG, write

from mobilemoe import engine
from mobilemoe.errors import MobileMoEError
from mobilemoe.profile.track import Track
from mobilemoe.profile.worker import SessionRunner

IDS = np.random.default_rng(0).integers(0, CONFIG.vocab_size, 65).tolist()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return engine.load(write(tmp_path_factory.mktemp("track") / "m").folder, threads=1, context=64)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["prefill", "decode"]), st.integers(1, 20), st.integers(0, 40)),
        min_size=1,
        max_size=5,
    ),
    st.integers(0, 60),
)
def test_any_rounds_leave_the_context_restorable(model, rounds, depth):
    session = model.session()
    track = Track(session, IDS)
    for kind, tokens, at in rounds:
        seconds = track.run(kind, tokens, at)
        assert len(seconds) == (1 if kind == "prefill" else tokens)
        assert all(second > 0 for second in seconds)
    track.restore(depth)
    assert session.position == depth
    fresh = model.session()
    expected = fresh.append(IDS[: depth + 1])
    assert np.array_equal(session.append(IDS[depth : depth + 1]), expected)


def test_decode_reads_the_stream_first_and_then_the_likeliest(model):
    class Seen:
        def __init__(self):
            self.session, self.ids = model.session(), []

        def append(self, ids):
            self.ids.append(list(ids))
            return self.session.append(ids)

        def rewind(self, position):
            self.session.rewind(position)

    seen = Seen()
    Track(seen, IDS).decode(4, 10)
    session, expected = model.session(), IDS[10]
    session.append(IDS[:10])
    assert seen.ids[0] == IDS[:10]
    for (token,) in seen.ids[1:]:
        assert token == expected
        expected = int(session.append([token]).argmax())
    assert len(seen.ids) == 5


def test_more_than_the_stream_is_an_error(model):
    with pytest.raises(MobileMoEError, match="the prompt has 65 tokens and 66 are asked for"):
        Track(model.session(), IDS).prefill(60, 6)


def test_experts_are_counted_over_the_whole_append(model):
    runner = SessionRunner(model, IDS)
    prompt = {"do": "run", "kind": "prefill", "tokens": 50, "depth": 3}
    session = model.session()
    session.append(IDS[:3])
    session.append(IDS[3:53])
    unique = [len(set(layer.ravel().tolist())) for layer in session.routing()]
    assert runner.run(prompt)["experts"] == np.mean(unique)
    step = {"do": "run", "kind": "decode", "tokens": 2, "depth": 3}
    assert runner.run(step)["experts"] == CONFIG.num_experts_per_tok
    assert runner.run({**step, "do": "prepare"}) == {}


def test_llama_cpp_goes_back_and_forth_as_our_session_does(model, tmp_path):
    pytest.importorskip("llama_cpp")
    pytest.importorskip("gguf")
    from mobilemoe.checkpoint import open_checkpoint
    from mobilemoe.export import export_gguf
    from mobilemoe.profile.llama_worker import LlamaContext, Settings, start

    path = export_gguf(open_checkpoint(model.folder), tmp_path / "m.gguf", "f32").path
    setup = {"path": str(path), "ids": IDS, "threads": 1, "context": 64}
    runner = start(setup | {"vocab_size": CONFIG.vocab_size})
    exact = engine.load(model.folder, threads=1, context=64, activations="fp32").session()
    context = LlamaContext(runner._model, CONFIG.vocab_size, Settings(False, "fp32"), 1, 64)
    theirs, ours = Track(context, IDS), Track(exact, IDS)
    for kind, tokens, depth in (("prefill", 30, 5), ("decode", 4, 20), ("prefill", 7, 50)):
        theirs.run(kind, tokens, depth)
        ours.run(kind, tokens, depth)
    theirs.restore(17)
    ours.restore(17)
    expected = exact.append(IDS[17:40])
    assert np.abs(context.append(IDS[17:40]) - expected).max() < 1e-4 * np.abs(expected).max()
    context.close()
