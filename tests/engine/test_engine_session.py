"""Sessions: append, rewind, refusals that change nothing, and many sessions of one model."""

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
    assert session.position == 2
    assert np.array_equal(session.append([3]), model.logits([1, 2, 3])[-1])


def test_a_full_context_refuses_one_more(model):
    session = model.session()
    session.append(list(range(16)))
    with pytest.raises(MobileMoEError, match="16 of 16 positions"):
        session.append([1])


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
