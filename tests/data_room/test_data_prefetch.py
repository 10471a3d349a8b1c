"""Prefetching changes when batches are made, never which."""

from __future__ import annotations

import threading
import time
from hashlib import sha256

import numpy as np
import pytest

from mobilemoe.data import Mixture, Prefetcher
from mobilemoe.errors import MobileMoEError


def _mixture() -> Mixture:
    streams = {"a": np.arange(900, dtype=np.uint16), "b": np.arange(300, dtype=np.uint16)}
    return Mixture(streams, {"a": 0.7, "b": 0.3}, 16, 4, 5)


def _hash(batches: list) -> str:
    digest = sha256()
    for batch in batches:
        digest.update(batch.ids_BT.tobytes() + batch.targets_BT.tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize(("workers", "depth"), [(1, 1), (1, 4), (3, 2), (4, 9)])
def test_batches_come_in_order_for_any_number_of_workers(workers: int, depth: int) -> None:
    expected = _hash([_mixture().batch(step) for step in range(5, 60)])
    with Prefetcher(_mixture().batch, 5, depth, workers, stop_step=60) as batches:
        assert _hash(list(batches)) == expected


def test_resuming_in_the_middle_of_an_epoch_with_other_workers_gives_the_same_bits() -> None:
    with Prefetcher(_mixture().batch, 0, 4, 1, stop_step=50) as batches:
        whole = list(batches)
    for stop, workers in ((7, 2), (23, 4)):  # an epoch of "b" ends after about 15 steps
        with Prefetcher(_mixture().batch, 0, 3, workers) as batches:
            first = [next(batches) for _ in range(stop)]
        with Prefetcher(_mixture().batch, stop, 5, 5 - workers, stop_step=50) as batches:
            assert _hash(first + list(batches)) == _hash(whole)


def test_slow_batches_do_not_overtake() -> None:
    def slow(step: int) -> int:
        time.sleep(0.02 if step % 3 == 0 else 0)
        return step

    with Prefetcher(slow, 0, 6, 6, stop_step=20) as numbers:
        assert list(numbers) == list(range(20))


def test_an_error_is_raised_where_its_batch_would_have_come() -> None:
    def broken(step: int) -> int:
        if step == 3:
            raise MobileMoEError("shard 7 is damaged")
        return step

    batches = Prefetcher(broken, 0, 8, 3)
    assert [next(batches) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(MobileMoEError, match="shard 7 is damaged"):
        next(batches)
    assert list(batches) == []


def test_no_more_than_the_depth_is_made_ahead_and_closing_ends_the_threads() -> None:
    asked: list[int] = []

    def note(step: int) -> int:
        asked.append(step)
        return step

    before = threading.active_count()
    with Prefetcher(note, 0, 3, 2) as batches:
        for _ in range(5):
            next(batches)
    assert max(asked) < 5 + 3
    batches.close()
    assert threading.active_count() == before


@pytest.mark.parametrize("field", ["start_step", "depth", "workers"])
def test_numbers_out_of_range_are_refused(field: str) -> None:
    with pytest.raises(MobileMoEError, match=f"{field} is -1"):
        Prefetcher(lambda step: step, **{field: -1})
