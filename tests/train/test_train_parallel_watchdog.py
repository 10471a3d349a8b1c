"""What counts as a hung rank, from the signs of life alone: no processes, no clock."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mobilemoe.train.parallel.watchdog import GONE, PATIENCE, WAITING, Judge, Sign

TIMEOUT = 10.0


def sign(now: float, rank: int, **changes: object) -> Sign:
    """A rank in good health at time `now`, in step `now`."""
    healthy = Sign(int(now), int(now), int(now), 0, f"host{rank}, process {rank}", WAITING)
    return replace(healthy, **changes)  # type: ignore[arg-type]


def first_verdict(*stories: dict[str, object], gone: int | None = None) -> tuple[int, str] | None:
    """Judge 500 seconds; rank i shows the frozen values of story i from second 20 on."""
    judge = Judge(len(stories), TIMEOUT, now=0.0)
    for now in range(500):
        signs = [sign(now, r, **(s if now >= 20 else {})) for r, s in enumerate(stories)]
        lines = [one.text().encode() for one in signs]
        if gone is not None and now >= 20:
            lines[gone] = GONE
        message = judge.verdict(lines, float(now))
        if message is not None:
            return now, message
    return None


def test_ranks_that_advance_are_left_alone() -> None:
    assert first_verdict({}, {}, {}) is None


def test_a_silent_rank_is_named_with_its_step() -> None:
    frozen = {"ticks": 20, "beats": 20, "step": 20}
    others_wait = {"beats": 21, "step": 21}
    found = first_verdict(others_wait, frozen)
    assert found is not None
    assert found[0] == 31  # last heard of at 20, and more than 10 s later
    assert "rank 1 (host1, process 1)" in found[1]
    assert found[1].endswith("in step 21"), "where the others wait for it"


def test_a_stuck_rank_is_told_from_those_that_wait_for_it() -> None:
    waiting = {"beats": 20, "step": 20}
    stuck = {"beats": 20, "step": 20, "where": "data.py:7 in read"}
    found = first_verdict(waiting, stuck, waiting)
    assert found is not None
    assert found[0] == 31
    assert "step 20: rank 1 (host1, process 1) at data.py:7 in read" in found[1]
    assert "rank 0" not in found[1]


def test_all_ranks_are_named_if_all_wait() -> None:
    waiting = {"beats": 20}
    found = first_verdict(waiting, waiting)
    assert found is not None
    assert "rank 0" in found[1]
    assert "rank 1" in found[1]


def test_one_rank_that_advances_is_enough() -> None:
    assert first_verdict({"beats": 20}, {}) is None


def test_slow_work_gets_more_time_but_not_for_ever() -> None:
    found = first_verdict({"beats": 20, "slow": 1}, {"beats": 20})
    assert found is not None
    assert found[0] == 20 + PATIENCE * TIMEOUT + 1


def test_slow_work_is_no_excuse_for_silence() -> None:
    found = first_verdict({"ticks": 20, "beats": 20, "step": 20, "slow": 1}, {})
    assert found is not None
    assert found[0] == 31


def test_a_job_that_was_stopped_as_a_whole_goes_on_and_is_watched_as_before() -> None:
    judge, last = Judge(2, TIMEOUT, now=0.0), 0.0
    for now in (*range(20), *range(300, 305)):  # stopped for five minutes
        lines = [sign(now, 0).text().encode(), sign(min(now, 19), 1).text().encode()]
        assert judge.verdict(lines, float(now)) is None
        last = float(now)
    while judge.verdict([sign(last, 0).text().encode(), lines[1]], last) is None:
        last += 1
    assert last == 300 + TIMEOUT + 1
    assert judge.silent == ("host1, process 1",)


def test_a_rank_that_has_left_is_not_missed() -> None:
    frozen = {"ticks": 20, "beats": 20, "step": 20}
    assert first_verdict({}, frozen) is not None
    assert first_verdict({}, frozen, gone=1) is None


@pytest.mark.parametrize("where", ["x.py:1 in f", "a b.py:2 in <module>"])
def test_a_sign_survives_the_store(where: str) -> None:
    one = sign(3, 1, where=where)
    assert Sign.read(one.text().encode()) == one
