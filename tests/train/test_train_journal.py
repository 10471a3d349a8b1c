"""The journal: every event comes back, half lines and steps made again go, damage is named."""

from __future__ import annotations

import json
import math
import resource
from pathlib import Path

import pytest
from event_stream import events, step
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilemoe.errors import MobileMoEError
from mobilemoe.train.event_json import KINDS
from mobilemoe.train.events import Alarm, ExpertLoads, RolledBack, StepSkipped, TrainEvent
from mobilemoe.train.journal import Journal, read_entries, read_journal

EVERY_KIND: tuple[TrainEvent, ...] = (
    step(3, mfu=None),
    ExpertLoads("sft", 3, ((5, 0, 7), (4, 4, 4))),
    StepSkipped("sft", 4, "loss is not finite", 1.5, 2.5, (17, 4), ("code", "mathé\udc80")),
    RolledBack("sft", 4, 2, "too many"),
    Alarm("sft", 4, "collapse", 'a "quoted"\nline'),
)


def written(path: Path, *stream: TrainEvent) -> Path:
    journal = Journal(path, clock=lambda: 1_800_000_000.25)
    for event in stream:
        journal.append(event)
    journal.close()
    return path


def test_every_event_comes_back(tmp_path: Path) -> None:
    path = written(tmp_path / "stages" / "sft" / "metrics.jsonl", *EVERY_KIND)
    assert read_journal(path) == list(EVERY_KIND)
    assert {type(event) for event in EVERY_KIND} == set(KINDS.values())
    assert [entry.time for entry in read_entries(path)] == [1_800_000_000.25] * 5


def test_lines_are_plain_json_with_kind_and_time(tmp_path: Path) -> None:
    path = written(tmp_path / "m.jsonl", *EVERY_KIND)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["event"] for line in lines] == list(KINDS)
    assert all(line["time"] == 1_800_000_000.25 and line["stage"] for line in lines)


@settings(max_examples=50)
@given(st.floats(allow_nan=True, allow_infinity=True))
def test_any_float_survives_and_the_line_stays_json(
    tmp_path_factory: pytest.TempPathFactory, value: float
) -> None:
    path = tmp_path_factory.mktemp("j") / "m.jsonl"
    written(path, StepSkipped("qat", 1, "", value, -value, (), ()))

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    json.loads(path.read_bytes(), parse_constant=refuse)
    (event,) = read_journal(path)
    assert isinstance(event, StepSkipped)
    assert event.loss == value or (math.isnan(event.loss) and math.isnan(value))


def test_an_event_is_there_before_the_journal_is_closed(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "m.jsonl")
    journal.append(EVERY_KIND[0])
    assert read_journal(tmp_path / "m.jsonl") == [EVERY_KIND[0]]


def test_a_kill_at_any_byte_is_repaired(tmp_path: Path) -> None:
    whole = written(tmp_path / "whole.jsonl", step(1), step(2)).read_bytes()
    first = whole.index(b"\n") + 1
    for cut in range(first, len(whole)):
        path = tmp_path / "cut.jsonl"
        path.write_bytes(whole[:cut])
        assert len(read_journal(path)) == 1  # a reader beside the writer
        written(path, step(3))
        assert [event.step for event in read_journal(path)] == [1, 3]


def test_a_half_line_longer_than_a_block_is_repaired(tmp_path: Path) -> None:
    path = written(tmp_path / "m.jsonl", step(1))
    size = path.stat().st_size
    with path.open("ab") as file:
        file.write(b"x" * 200_000)
    Journal(path).close()
    assert path.stat().st_size == size


def steps_of(stream: list[TrainEvent]) -> list[int]:
    return [event.from_step if isinstance(event, RolledBack) else event.step for event in stream]


def test_resuming_drops_what_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    loads, alarm = ExpertLoads("pretrain", 2, ((1, 2),)), Alarm("pretrain", 2, "collapse", "")
    written(path, step(1), step(2), loads, alarm, step(3), step(4))
    journal = Journal(path)
    journal.truncate_to(2)
    journal.append(step(3, loss=9.0))
    assert read_journal(path) == [step(1), step(2), loads, alarm, step(3, loss=9.0)]
    journal.truncate_to(0)
    assert path.read_bytes() == b""


def test_what_a_rollback_undid_stays_if_the_saved_state_is_newer(tmp_path: Path) -> None:
    back = RolledBack("pretrain", 4, 2, "too many")
    path = written(tmp_path / "m.jsonl", *map(step, (1, 2, 3, 4)), back, step(3), step(4), step(5))
    Journal(path).truncate_to(4)
    assert steps_of(read_journal(path)) == [1, 2, 3, 4, 4, 3, 4]
    Journal(path).truncate_to(2)  # going back wrote the state anew
    assert read_journal(path)[-1] == back
    Journal(path).truncate_to(1)
    assert steps_of(read_journal(path)) == [1]


def test_going_back_to_the_very_start_is_not_forgotten(tmp_path: Path) -> None:
    back = RolledBack("pretrain", 2, 0, "too many")
    path = written(tmp_path / "m.jsonl", step(1), step(2), back, step(1))
    Journal(path).truncate_to(0)
    assert read_journal(path) == [step(1), step(2), back]


def test_a_rollback_behind_the_saved_state_will_happen_again(tmp_path: Path) -> None:
    path = written(tmp_path / "m.jsonl", step(1), step(2), RolledBack("pretrain", 3, 2, ""))
    written(path, Alarm("pretrain", 2, "tracker", ""), RolledBack("pretrain", 9, 7, ""))
    Journal(path).truncate_to(2)
    assert steps_of(read_journal(path)) == [1, 2, 3, 2]


@settings(max_examples=30)
@given(st.integers(0, 90))
def test_a_resumed_stage_has_the_journal_of_an_uninterrupted_one(
    tmp_path_factory: pytest.TempPathFactory, saved: int
) -> None:
    stream = list(events("pretrain", 90))
    path = written(tmp_path_factory.mktemp("j") / "m.jsonl", *stream)
    journal = Journal(path)
    journal.truncate_to(saved)
    for event in stream:
        if steps_of([event])[0] > saved:
            journal.append(event)
    assert list(map(repr, read_journal(path))) == list(map(repr, stream))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 is damaged"),
        ("[]", "not an object"),
        ('{"event": "step"}', "time is None"),
        ('{"event": "stop", "time": 1}', "event is 'stop'; allowed: step, loads"),
        ('{"event": "alarm", "time": 1, "stage": "sft", "step": 1, "kind": "x"}', "'message'"),
        (
            '{"event": "rolled_back", "time": 1, "stage": "s", "from_step": 2.5, "to_step": 1, '
            '"reason": ""}',
            "from_step is 2.5",
        ),
        (
            '{"event": "alarm", "time": 1, "stage": "sft", "step": true, "kind": "", '
            '"message": ""}',
            "step is True",
        ),
        (
            '{"event": "alarm", "time": 1, "stage": "sft", "step": 1, "kind": "", "message": "", '
            '"more": 1}',
            "unknown field 'more'",
        ),
        ('{"event": "loads", "time": 1, "stage": "", "step": 1, "tokens_per_expert": [1]}', "is 1"),
        ("[" * 100_000, "damaged"),
    ],
)
def test_rejects_a_damaged_line(tmp_path: Path, line: str, message: str) -> None:
    path = written(tmp_path / "m.jsonl", step(1))
    with path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(MobileMoEError, match=r"m\.jsonl, line 2 is damaged") as caught:
        read_journal(path)
    assert message in str(caught.value)


def test_rejects_a_journal_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MobileMoEError, match="cannot read the journal"):
        read_journal(tmp_path / "m.jsonl")


def test_a_disk_that_takes_half_a_line_leaves_none(tmp_path: Path) -> None:
    path = written(tmp_path / "m.jsonl", step(1))
    size = path.stat().st_size
    journal = Journal(path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 30, hard))
    try:
        with pytest.raises(MobileMoEError, match=r"cannot write the journal .*m\.jsonl"):
            journal.append(step(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.stat().st_size == size
    journal.append(step(2))
    assert read_journal(path) == [step(1), step(2)]
