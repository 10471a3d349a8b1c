"""Mixtures over any number of rows and ranks: orders, shares, epochs, packing, mapped streams."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shard_support import documents, talk_source, talks, text_source, tokenizer_json, write_jsonl

from mobilemoe.data import IGNORED, Mixture, PrepareOptions, prepare_source, shuffle
from mobilemoe.data.packing import OPEN_ROWS, pack
from mobilemoe.data.schedule import PERIOD, Schedule, row_schedule
from mobilemoe.data.shards import filling
from mobilemoe.data.shuffle import FeistelOrder, epoch_order, shuffled
from mobilemoe.data.windows import PackedConversations, StreamWindows
from mobilemoe.errors import MobileMoEError


@given(st.integers(1, 3000), st.integers(0, 9), st.integers(0, 2**63 - 1))
@settings(max_examples=40, deadline=None)
def test_the_large_order_visits_every_row_once(rows: int, epoch: int, seed: int) -> None:
    order = FeistelOrder(rows, "web", epoch, seed)
    assert sorted(order[rank] for rank in range(rows)) == list(range(rows))


def test_the_large_order_is_as_good_as_chance() -> None:
    rows = 4500  # just above a power of four: most numbers walk
    order = np.array([FeistelOrder(rows, "web", 0, 7)[rank] for rank in range(rows)])
    assert abs(np.corrcoef(order, np.arange(rows))[0, 1]) < 0.06  # 4 sigma
    assert abs(np.corrcoef(order[1:], order[:-1])[0, 1]) < 0.06
    grid, _, _ = np.histogram2d(np.arange(rows), order, bins=15)
    assert ((grid - 20) ** 2 / 20).sum() < 300  # chi-squared of 196 degrees: mean 196, sigma 20
    others = [FeistelOrder(rows, name, e, s)[0] for name in "ab" for e in (0, 1) for s in (0, 1)]
    assert len(set(others)) == 8


def test_billions_of_rows_take_no_memory_and_keep_their_order() -> None:
    order = shuffled(3 * 10**9, "web", 1, 2)
    assert [order[rank] for rank in (0, 1, 2 * 10**9)] == [1889543746, 2843188275, 2600200859]
    seen = {order[rank] for rank in range(2000)}
    assert len(seen) == 2000 and max(seen) > 2.9 * 10**9
    with pytest.raises(IndexError):
        order[3 * 10**9]
    assert isinstance(shuffled(shuffle.IN_MEMORY, "web", 0, 0), np.ndarray)


@given(st.lists(st.floats(0.005, 1), min_size=1, max_size=40))
@settings(max_examples=40, deadline=None)
def test_shares_are_within_a_thousandth(weights: list[float]) -> None:
    shares = np.array(weights) / sum(weights)
    counts = np.bincount(row_schedule(weights), minlength=len(weights))
    assert np.abs(counts / PERIOD - shares).max() < 1e-3


@given(st.lists(st.floats(0.02, 1), min_size=1, max_size=6), st.integers(0, 3 * PERIOD))
@settings(max_examples=30, deadline=None)
def test_drawn_rows_are_those_that_are_located(weights: list[float], rows: int) -> None:
    schedule = Schedule({f"s{i}": weight for i, weight in enumerate(weights)})
    places = [schedule.locate(row) for row in range(rows)]
    drawn = schedule.drawn(rows)
    assert Counter(name for name, _ in places) == Counter({n: c for n, c in drawn.items() if c})
    for name in schedule.names:  # each name's rows come one after the other
        assert [i for n, i in places if n == name] == list(range(drawn[name]))


def _naive_pack(lengths: list[int], capacity: int) -> list[list[int]]:
    """The definition: best fit among the last rows, the oldest of equals."""
    rows: list[list[int]] = []
    room: list[int] = []
    for index, length in enumerate(lengths):
        if length > capacity:
            continue
        fitting = [r for r in range(max(0, len(rows) - OPEN_ROWS), len(rows)) if room[r] >= length]
        if not fitting:
            rows.append([])
            room.append(capacity)
            fitting = [len(rows) - 1]
        best = min(fitting, key=room.__getitem__)
        rows[best].append(index)
        room[best] -= length
    return rows


@given(st.lists(st.integers(1, 60), max_size=300), st.integers(20, 50))
@settings(max_examples=60, deadline=None)
def test_packing_is_best_fit(lengths: list[int], capacity: int) -> None:
    assert pack(lengths, capacity) == _naive_pack(lengths, capacity)


@pytest.fixture(scope="module")
def streams(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """A mapped stream and mapped conversations, of several shards each."""
    folder = tmp_path_factory.mktemp("mixture")
    web = text_source(write_jsonl(folder / "web.jsonl", documents(300)))
    chat = talk_source(write_jsonl(folder / "chat.jsonl", talks(200)))
    options = PrepareOptions(shard_tokens=9000, heldout_tokens=600)
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filling, "CHUNK_RECORDS", 32)
        for own in (web, chat):
            out = folder / own.name
            made[own.name] = prepare_source(own, tokenizer_json(), out, None, 0, options=options)
    assert all(len(shards.index.shards) > 1 for shards in made.values())
    return {name: shards.stream("train") for name, shards in made.items()}


def _mixture(streams: dict, seed: int = 3) -> Mixture:
    return Mixture(streams, {"web": 0.6, "chat": 0.4}, 200, 8, seed, labels={"web": "text"})


@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
def test_ranks_together_read_the_batch(streams: dict, ranks: int) -> None:
    mixture = _mixture(streams)
    for step in (0, 5, 77):
        whole = mixture.batch(step)
        each = 8 // ranks
        rows = [range(rank * each, (rank + 1) * each) for rank in range(ranks)]
        parts = [_mixture(streams).batch_rows(step, own) for own in rows]
        assert (np.concatenate([part.ids_BT for part in parts]) == whole.ids_BT).all()
        assert (np.concatenate([part.targets_BT for part in parts]) == whole.targets_BT).all()
        assert sum((part.domains for part in parts), ()) == whole.domains
        assert set(whole.domains) <= {"text", "chat"}
    with pytest.raises(MobileMoEError, match="rows are range"):
        mixture.batch_rows(0, range(4, 9))
    with pytest.raises(MobileMoEError, match="rows are range"):
        mixture.batch_rows(0, range(0))


def test_a_stream_that_runs_out_starts_again_in_another_order(streams: dict) -> None:
    mixture = _mixture(streams)
    steps = 4 * (mixture.counts["web"].rows + mixture.counts["chat"].rows) // 8
    places = [mixture.locate(row) for row in range(steps * 8)]
    epochs = mixture.epochs(steps)
    for name, count in mixture.counts.items():
        visits = [(epoch, window) for n, epoch, window in places if n == name]
        assert len(visits) == mixture.rows_drawn(steps)[name]
        assert epochs[name] == len(visits) / count.rows > 2
        first = [window for epoch, window in visits if epoch == 0]
        second = [window for epoch, window in visits if epoch == 1]
        assert sorted(first) == sorted(second) == list(range(count.rows))
        assert first != second


def test_small_and_large_orders_can_be_mixed(
    streams: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shuffle, "IN_MEMORY", 10)
    mixture = _mixture(streams)
    rows = mixture.counts["web"].rows
    places = [mixture.locate(row) for row in range(3 * rows)]
    windows = [window for name, epoch, window in places if (name, epoch) == ("web", 0)]
    assert sorted(windows) == list(range(rows))


def test_accounts_of_mapped_streams_add_up(streams: dict) -> None:
    windows = {
        "web": StreamWindows(streams["web"], 200),
        "chat": PackedConversations(streams["chat"], 200, pad_id=1),
    }
    for name, own in windows.items():
        count = own.count
        rows = [own.row(i) for i in range(len(own))]
        assert count.tokens == count.used + count.dropped
        assert count.rows * count.row_tokens == count.used + count.padded
        assert count.learnt == sum(int((targets != IGNORED).sum()) for _, targets in rows)
        assert f"{count.tokens:,} tokens in = {count.used:,} used + {count.dropped:,}" in str(count)
        total = len(streams["web"]) if name == "web" else int(streams["chat"].lengths.sum())
        assert count.tokens == total
    assert windows["chat"].count.conversations_dropped > 0
    assert windows["chat"].count.padded > 0


def test_the_order_of_rows_is_pinned() -> None:
    """Resumes depend on it: it must be the same on every machine and in every version."""
    schedule = Schedule({"a": 0.55, "b": 0.3, "c": 0.15})
    names = "".join(schedule.locate(row)[0] for row in range(PERIOD, PERIOD + 20))
    assert names == "abacabaabacababacaba"
    order = FeistelOrder(1000, "web", 2, 9)
    assert [order[rank] for rank in range(8)] == [833, 65, 956, 441, 212, 683, 591, 476]


def test_the_last_two_epochs_are_remembered(streams: dict) -> None:
    mixture = _mixture(streams)
    rows = mixture.counts["web"].rows
    expected = [list(epoch_order(rows, "web", epoch, 3)) for epoch in range(4)]
    for epoch in (0, 1, 0, 1, 2, 1, 3):
        assert list(mixture._order("web", epoch)) == expected[epoch]
        assert len(mixture._orders["web"]) <= 2
