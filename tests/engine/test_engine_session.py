"""Sessions: append, prefill, rewind, reuse, refusals that change nothing, many at a time."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from engine_support import INT4_FOLDERS

from mobilemoe.engine import load
from mobilemoe.errors import MobileMoEError

FOLDER = INT4_FOLDERS[0]


@pytest.fixture(scope="module")
def model():
    return load(FOLDER, threads=2, context=16)


def test_append_returns_the_logits_of_the_last_position(model):
    ids = [5, 4, 3, 2]
    assert np.array_equal(model.session().append(ids), model.logits(ids)[-1])


def test_rewind_forgets_exactly_what_came_after(model):
    session = model.session()
    session.append([7, 8, 9])
    session.append([100, 101])
    session.rewind(3)
    assert session.position == 3
    assert np.array_equal(session.append([10]), model.logits([7, 8, 9, 10])[-1])


@pytest.mark.parametrize("position", [-1, 4, 1.5, "2", True])
def test_rewind_refuses_other_positions(model, position):
    session = model.session()
    session.append([1, 2, 3])
    with pytest.raises(MobileMoEError, match=rf"position is {position!r}; allowed: 0 to 3"):
        session.rewind(position)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([], "ids is"),
        ([1, 512], "token id is 512; allowed: 0 to 511"),
        ([-1], "token id is -1"),
        ([2**40], "token id is"),
        ([0.5], "ids is"),
        ([[1]], "ids is"),
        ([[1], [1, 2]], "ids is"),
        ([True], "ids is"),
        ([1] * 17, "17 tokens; allowed: at most 14"),
    ],
)
def test_a_refused_append_changes_nothing(model, ids, message):
    session = model.session()
    session.append([1, 2])
    with pytest.raises(MobileMoEError, match=message):
        session.append(ids)
    with pytest.raises(MobileMoEError, match=message):
        session.append_all(ids)
    with pytest.raises(MobileMoEError):
        session.prefill(ids)
    if ids != [1] * 17:
        with pytest.raises(MobileMoEError, match=message):
            session.reuse(ids)
    assert (session.position, session.ids) == (2, [1, 2])
    assert np.array_equal(session.append([3]), model.logits([1, 2, 3])[-1])


def test_a_full_context_refuses_one_more(model):
    session = model.session()
    session.append(list(range(16)))
    with pytest.raises(MobileMoEError, match="16 of 16 positions"):
        session.append([1])


def test_ids_are_those_of_the_context(model):
    session = model.session()
    assert session.ids == []
    session.append([7, 8, 9])
    session.append_all(np.array([10, 11]))
    assert session.ids == [7, 8, 9, 10, 11]
    session.rewind(2)
    assert session.ids == [7, 8]
    session.append([5])
    assert session.ids == [7, 8, 5]


def test_a_prefill_can_be_stopped_between_chunks(model):
    session = model.session()
    ids = list(range(10))
    for step in session.prefill(ids, chunk=3):
        assert session.ids == ids[: step.done]
        if step.done == 6:
            break
    assert np.array_equal(session.append(ids[6:]), model.logits(ids)[-1])


def test_a_prefill_reads_the_ids_of_the_call(model):
    ids = np.arange(6, dtype=np.int32)
    session = model.session()
    steps = session.prefill(ids, chunk=2)
    next(steps)
    ids[:] = 99
    *_, last = steps
    assert session.ids == list(range(6)) and last.done == 6


def test_a_prefill_notices_that_its_session_moved(model):
    session = model.session()
    steps = session.prefill([1, 2, 3, 4], chunk=2)
    next(steps)
    session.append([5])
    with pytest.raises(MobileMoEError, match="position is 3; allowed: 2") as caught:
        next(steps)
    assert caught.value.hint
    assert session.ids == [1, 2, 5]


def test_a_prefill_that_does_not_fit_is_refused_before_it_begins(model):
    session = model.session()
    session.append([1, 2])
    with pytest.raises(MobileMoEError, match="number of ids is 15; allowed: at most 14"):
        session.prefill([3] * 15)
    with pytest.raises(MobileMoEError, match="chunk is 0"):
        session.prefill([3], chunk=0)
    assert session.ids == [1, 2]


@pytest.mark.parametrize(
    ("ids", "kept"),
    [
        ([1, 2, 3, 4, 5, 6, 7], 5),
        ([1, 2, 3, 4, 5], 4),
        ([1, 2, 3], 2),
        ([1, 2, 9, 4, 5, 6], 2),
        ([9, 2, 3, 4, 5, 6], 0),
        ([1], 0),
    ],
)
def test_reuse_keeps_the_longest_common_prefix_short_of_all(model, ids, kept):
    session = model.session()
    session.append([1, 2, 3, 4, 5])
    assert session.reuse(ids) == kept == session.position
    assert session.ids == ids[:kept]
    assert np.array_equal(session.append(ids[kept:]), model.logits(ids)[-1])
    assert session.routing().shape[1] == len(ids) - kept


def test_reuse_up_to_a_limit(model):
    session = model.session()
    session.append([1, 2, 3, 4, 5])
    assert session.common_prefix([1, 2, 3, 4, 5, 6]) == 5
    assert session.reuse([1, 2, 3, 4, 5], limit=5) == 5
    assert session.reuse([1, 2, 3, 4, 5], limit=3) == 3
    assert session.reuse([1, 2, 3], limit=0) == 0


@pytest.mark.parametrize("limit", [-1, 4, 1.5, True])
def test_reuse_refuses_other_limits(model, limit):
    session = model.session()
    session.append([1, 2])
    with pytest.raises(MobileMoEError, match=rf"limit is {limit}; allowed: 0 to 3"):
        session.reuse([1, 2, 3], limit)
    assert session.ids == [1, 2]


def test_reuse_refuses_more_than_the_context(model):
    session = model.session()
    session.append([1, 2, 3])
    with pytest.raises(MobileMoEError, match="number of ids is 17; allowed: at most 16"):
        session.reuse([1, 9] + [2] * 15)
    assert session.ids == [1, 2, 3]


def test_sessions_in_parallel_python_threads_do_not_mix(model):
    prompts = [[i, 2 * i, 3 * i, 7] for i in range(1, 9)]
    expected = [model.logits(ids) for ids in prompts]
    results = [None] * len(prompts)

    def work(index):
        session = model.session()
        results[index] = np.stack([session.append([i]) for i in prompts[index]])

    workers = [threading.Thread(target=work, args=(i,)) for i in range(len(prompts))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for result, logits in zip(results, expected, strict=True):
        assert np.array_equal(result, logits)


def test_a_session_outlives_its_model():
    session = load(FOLDER, threads=2, context=8).session()
    assert np.isfinite(session.append([1, 2])).all()
