"""Windows, packing and mixtures: every token accounted for, every batch a pure function."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilemoe.data import IGNORED, ConversationSet, Mixture
from mobilemoe.data.packing import OPEN_ROWS, pack
from mobilemoe.data.schedule import PERIOD, row_schedule
from mobilemoe.data.shuffle import epoch_order
from mobilemoe.data.windows import PackedConversations, StreamWindows
from mobilemoe.errors import MobileMoEError

PAD = 1


def _stream(size: int, first: int = 0) -> np.ndarray:
    return np.arange(first, first + size, dtype=np.uint16)


def _talks(lengths: list[int]) -> ConversationSet:
    """Conversation i holds the ids 100 i + 10, 100 i + 11, ...; half of it is the answer."""
    ids = [100 * i + 10 + k for i, n in enumerate(lengths) for k in range(n)]
    offsets = np.cumsum([0, *lengths]).astype(np.int64)
    answers = np.array([max(1, n // 2) for n in lengths], np.int64)
    return ConversationSet(np.array(ids, np.uint16), offsets, answers)


@given(st.integers(2, 400), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_every_token_is_a_target_once(size: int, context: int) -> None:
    if size <= context:
        with pytest.raises(MobileMoEError, match="no window of context"):
            StreamWindows(_stream(size), context)
        return
    windows = StreamWindows(_stream(size), context)
    rows = [windows.row(i) for i in range(len(windows))]
    targets = np.concatenate([targets for _, targets in rows])
    assert targets.tolist() == list(range(1, len(targets) + 1))
    assert all((targets - ids == 1).all() for ids, targets in rows)
    count = windows.count
    assert count.used == len(targets)
    assert count.tokens == size == count.used + count.dropped
    assert count.dropped <= context


@given(st.lists(st.integers(1, 30), max_size=120), st.integers(1, 40))
@settings(max_examples=80, deadline=None)
def test_packing_keeps_every_conversation_that_fits(lengths: list[int], capacity: int) -> None:
    rows = pack(lengths, capacity)
    members = sorted(i for row in rows for i in row)
    assert members == [i for i, length in enumerate(lengths) if length <= capacity]
    assert all(sum(lengths[i] for i in row) <= capacity for row in rows)
    for late, row in enumerate(rows):  # the first of a row fitted into none of those before it
        earlier = rows[max(0, late - OPEN_ROWS) : late]
        taken = [sum(lengths[i] for i in other if i < row[0]) for other in earlier]
        assert all(total + lengths[row[0]] > capacity for total in taken)


def test_packed_rows_hold_whole_conversations_and_their_answers() -> None:
    lengths = [9, 30, 4, 7, 12, 5, 16, 3]
    packed = PackedConversations(_talks(lengths), 16, PAD)
    seen: Counter[int] = Counter()
    learnt: Counter[int] = Counter()
    for index in range(len(packed)):
        ids_T, targets_T = packed.row(index)
        assert ids_T.shape == targets_T.shape == (16,)
        seen.update(ids_T[ids_T != PAD].tolist())
        learnt.update(targets_T[targets_T != IGNORED].tolist())
        following = np.append(ids_T[1:], IGNORED)
        assert ((targets_T == IGNORED) | (targets_T == following)).all()
    kept = [i for i, n in enumerate(lengths) if n <= 16]
    assert seen == Counter(100 * i + 10 + k for i in kept for k in range(lengths[i]))
    answers = {i: range(max(1, lengths[i] // 2), lengths[i]) for i in kept}
    assert learnt == Counter(100 * i + 10 + k for i, own in answers.items() for k in own)


def test_packing_accounts_for_every_token() -> None:
    lengths = [9, 30, 4, 7, 12, 5, 16, 3]
    packed = PackedConversations(_talks(lengths), 16, PAD)
    count = packed.count
    assert (count.tokens, count.used, count.dropped) == (86, 56, 30)
    assert count.conversations_dropped == 1
    assert count.rows * count.row_tokens == count.used + count.padded
    pads = sum(int((packed.row(i)[0] == PAD).sum()) for i in range(len(packed)))
    assert pads == count.padded


def _mixture(seed: int = 5, **weights: float) -> Mixture:
    streams = {"a": _stream(1000), "b": _stream(90, 2000), "instruct": _talks([9, 4, 7, 12, 5] * 9)}
    return Mixture(streams, weights or {"a": 0.5, "b": 0.3, "instruct": 0.2}, 16, 4, seed)


def test_batch_is_a_pure_function_of_seed_and_step() -> None:
    first, second = _mixture(), _mixture()
    forward = [first.batch(step) for step in range(60)]
    for step in (59, 3, 0, 31, 3):  # any order, another object
        again = second.batch(step)
        assert (again.ids_BT == forward[step].ids_BT).all()
        assert (again.targets_BT == forward[step].targets_BT).all()
        assert again.domains == forward[step].domains
    assert any((_mixture(6).batch(s).ids_BT != forward[s].ids_BT).any() for s in range(3))


def test_batch_has_the_promised_shape_and_type() -> None:
    batch = _mixture().batch(7)
    assert batch.ids_BT.shape == batch.targets_BT.shape == (4, 16)
    assert batch.ids_BT.dtype == batch.targets_BT.dtype == np.int64
    assert len(batch.domains) == 4
    assert (batch.ids_BT >= 0).all()


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=5))
@settings(max_examples=30, deadline=None)
def test_shares_reach_the_weights(weights: list[float]) -> None:
    schedule = row_schedule(weights)
    shares = np.array(weights) / sum(weights)
    counts = np.cumsum(schedule[:, None] == np.arange(len(weights)), axis=0)
    rows = np.arange(1, PERIOD + 1)[:, None]
    assert np.abs(counts - rows * shares).max() < len(weights)  # never far off on the way
    assert np.abs(counts[-1] / PERIOD - shares).max() < 1e-3


def test_mixture_rows_follow_the_schedule() -> None:
    mixture = _mixture()
    domains = Counter(mixture.locate(row)[0] for row in range(2 * PERIOD))
    assert domains["a"] / (2 * PERIOD) == pytest.approx(0.5, abs=1e-3)
    assert domains["b"] / (2 * PERIOD) == pytest.approx(0.3, abs=1e-3)
    assert domains["instruct"] / (2 * PERIOD) == pytest.approx(0.2, abs=1e-3)


def test_every_window_comes_once_per_epoch() -> None:
    mixture = _mixture()
    visits: dict[tuple[str, int], list[int]] = {}
    for row in range(PERIOD + 1500):  # across the end of a period
        name, epoch, window = mixture.locate(row)
        visits.setdefault((name, epoch), []).append(window)
    windows = {"a": 62, "b": 5, "instruct": mixture.counts["instruct"].rows}
    last = {name: max(e for n, e in visits if n == name) for name in windows}
    assert all(last[name] > 3 for name in windows)
    for (name, epoch), seen in visits.items():
        if epoch < last[name]:
            assert sorted(seen) == list(range(windows[name]))
    assert visits[("a", 0)] != visits[("a", 1)]


def test_order_is_pinned() -> None:
    """The order of an epoch must be the same on every machine and version: resumes depend on it."""
    assert epoch_order(8, "code", 0, 0).tolist() == [5, 7, 0, 3, 4, 6, 2, 1]
    orders = {tuple(epoch_order(30, name, e, s)) for name in "ab" for e in (0, 1) for s in (0, 1)}
    assert len(orders) == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": {"c": 1.0}}, "allowed: a, b"),
        ({"weights": {"a": -1.0}}, "weights are"),
        ({"weights": {"a": 0.0}}, "weights are"),
        ({"weights": {"a": float("nan")}}, "weights are"),
        ({"weights": {"a": 1.0, "b": 1e-6}}, "weights are"),
        ({"context": 0}, "context is 0"),
        ({"context": 300}, "no window of context 300"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_bad_mixtures_are_refused(change: dict, message: str) -> None:
    good = {"weights": {"a": 1.0, "b": 1.0}, "context": 16, "batch_size": 4, "seed": 0}
    with pytest.raises(MobileMoEError, match=message):
        Mixture({"a": _stream(200), "b": _stream(200)}, **{**good, **change})


def test_bad_steps_and_conversations_are_refused() -> None:
    with pytest.raises(MobileMoEError, match="step is -1"):
        _mixture().batch(-1)
    with pytest.raises(MobileMoEError, match="no conversation fits"):
        PackedConversations(_talks([20, 30]), 16, PAD)
