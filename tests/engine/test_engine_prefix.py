"""Prefix reuse: only new tokens are computed, with the bits of a fresh session, within bounds."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from engine_support import INT4_FOLDERS, SMALL, write_random
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilemoe.engine import SessionPool, load
from mobilemoe.errors import MobileMoEError

FOLDER = INT4_FOLDERS[0]
IDS = np.random.default_rng(1).integers(0, 512, 64).tolist()


@pytest.fixture(scope="module")
def model():
    return load(FOLDER, threads=2, context=64)


def read(pool, ids):
    """Read `ids` in a session of `pool`; return the logits and how many tokens were computed."""
    with pool.lend(ids) as session:
        logits_V = session.append(ids[session.position :])
        return logits_V, session.routing().shape[1]


prompts = st.lists(
    st.tuples(st.sampled_from([0, 0, 1, 2]), st.integers(0, 12), st.integers(1, 8)),
    min_size=1,
    max_size=12,
)


@settings(max_examples=25, deadline=None)
@given(recipe=prompts, max_sessions=st.integers(1, 3))
def test_pooled_logits_are_bitwise_those_of_a_fresh_session(model, recipe, max_sessions):
    pool = SessionPool(model, max_sessions)
    for family, shared, own in recipe:
        ids = [family] * shared + IDS[own : 2 * own]
        logits_V, _ = read(pool, ids)
        assert logits_V.tobytes() == model.session().append(ids).tobytes()
        assert pool.sessions <= max_sessions


def test_a_longer_prompt_computes_only_its_end(model):
    pool = SessionPool(model)
    assert read(pool, IDS[:20])[1] == 20
    assert read(pool, IDS[:30])[1] == 10
    assert read(pool, [*IDS[:25], 7])[1] == 1
    assert read(pool, [*IDS[:25], 7])[1] == 1, "the same again: one for its logits"
    assert pool.sessions == 1


def test_the_longest_common_prefix_wins(model):
    pool = SessionPool(model, 3)
    for family in (1, 2, 3):
        read(pool, [family] * 10)
    assert pool.sessions == 3
    assert read(pool, [2] * 10 + [5])[1] == 1
    assert read(pool, [1] * 10 + [5])[1] == 1
    assert read(pool, [3] * 10 + [5])[1] == 1


def test_a_longer_prefix_is_worth_forgetting_an_end_for(model):
    pool = SessionPool(model, 2)
    with pool.lend(IDS) as short, pool.lend(IDS) as long:
        short.append(IDS[:5])
        long.append([*IDS[:20], 7, 8])
    assert read(pool, [*IDS[:20], 9])[1] == 1


def test_a_shared_beginning_does_not_cost_another_conversation_its_end(model):
    pool = SessionPool(model, 2)
    conversation = IDS[:40]
    read(pool, conversation)
    assert read(pool, [*IDS[:3], 9])[1] == 4, "there was room for a second session"
    assert read(pool, [*conversation, 9])[1] == 1


def test_without_room_the_least_recently_used_gives_way(model):
    pool = SessionPool(model, 2)
    read(pool, [1] * 10)
    read(pool, [2] * 10)
    read(pool, [1] * 11)
    assert read(pool, [3] * 10)[1] == 10
    assert read(pool, [1] * 12)[1] == 1
    assert read(pool, [2] * 10)[1] == 10, "it gave way"
    assert pool.sessions == 2


def test_generation_in_a_pooled_session_is_the_same_and_cheaper(model):
    pool = SessionPool(model)
    for turn in (10, 20, 30):
        with pool.lend(IDS[:turn]) as session:
            kept = session.position
            tokens = list(model.generate(IDS[:turn], 4, 1.0, seed=1, session=session))
        assert kept == turn - 10
        assert tokens == list(model.generate(IDS[:turn], 4, 1.0, seed=1))


def test_lent_sessions_are_independent_and_run_out_with_a_hint(model):
    pool = SessionPool(model, 2)
    with pool.lend(IDS[:5]) as first, pool.lend(IDS[:5]) as second:
        assert first is not second
        assert np.array_equal(first.append(IDS[:5]), second.append(IDS[:5]))
        with pytest.raises(MobileMoEError, match="all 2 sessions are in use") as caught:
            pool.lend(IDS[:5]).__enter__()
        assert caught.value.hint
    assert pool.sessions == 2
    assert read(pool, IDS[:6])[1] == 1


def test_a_session_comes_back_after_an_error(model):
    pool = SessionPool(model, 1)
    read(pool, IDS[:5])
    with pytest.raises(RuntimeError), pool.lend(IDS[:6]):
        raise RuntimeError
    for refused in ([], [512], [1] * 65, [[1], [1, 2]]):
        with pytest.raises(MobileMoEError), pool.lend(refused):
            pass
    assert pool.sessions == 1
    assert read(pool, IDS[:6])[1] == 1


def test_bytes_bound_the_sessions(model):
    each = model.session_bytes
    pool = SessionPool(model, 8, max_bytes=3 * each - 1)
    assert pool.capacity == 2
    for family in range(5):
        read(pool, [family] * 4)
        assert pool.bytes <= 3 * each - 1
    assert pool.bytes == 2 * each
    pool.clear()
    assert (pool.sessions, pool.bytes) == (0, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_sessions": 0}, "max_sessions is 0"),
        ({"max_sessions": 1.5}, "max_sessions is 1.5"),
        ({"max_bytes": 1000}, r"max_bytes is 1000; allowed: \d+ \(one session\) or more"),
    ],
)
def test_bad_limits_are_refused_with_a_hint(model, arguments, message):
    with pytest.raises(MobileMoEError, match=message) as caught:
        SessionPool(model, **arguments)
    assert caught.value.hint


def test_threads_share_a_pool(model):
    pool = SessionPool(model, 4)
    wrong = []

    def work(family):
        for length in range(4, 24, 4):
            ids = [family] * length
            if not np.array_equal(read(pool, ids)[0], model.session().append(ids)):
                wrong.append(ids)

    workers = [threading.Thread(target=work, args=(family,)) for family in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []
    assert pool.sessions <= 4


# Many prompts through a pool of two: what the process takes is what the pool says.
TAKE = """
import json, sys
from pathlib import Path
from mobilemoe.engine import SessionPool, load
from mobilemoe.engine.system_files import read_field
model = load(sys.argv[1], threads=1, context=1024)
pool = SessionPool(model, 9, 2 * model.session_bytes)
model.session().append([1])
before = read_field(Path("/proc/self/status"), "RssAnon")
for family in range(5):
    with pool.lend([family] * 1024) as session:
        session.append([family] * 1024)
after = read_field(Path("/proc/self/status"), "RssAnon")
print(json.dumps([1024 * (after - before), pool.bytes, 2 * model.session_bytes]))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_the_process_takes_no_more_than_the_pool_says(tmp_path):
    config = replace(SMALL, max_position_embeddings=1024, num_key_value_heads=6, head_dim=64)
    write_random(tmp_path / "model", config)
    command = [sys.executable, "-c", TAKE, str(tmp_path / "model")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    taken, said, limit = json.loads(done.stdout)
    assert said == limit
    assert taken < 1.1 * limit, f"{taken} bytes were taken, {limit} allowed"
