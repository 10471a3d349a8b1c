"""The display of a run: what it knows, the panel at every width, and plain lines elsewhere."""

from __future__ import annotations

import io
import random
from dataclasses import replace

import pytest
from event_stream import events, step
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from mobilemoe.cli.train_panel import sparkline, train_panel
from mobilemoe.cli.train_state import HISTORY, RunState, Trend
from mobilemoe.cli.train_view import LINE_EVERY_SECONDS, TrainView
from mobilemoe.cli.units import time_span
from mobilemoe.page.markup import TIMES
from mobilemoe.recipe import Stage
from mobilemoe.train.events import Alarm, ExpertLoads, RolledBack, StepSkipped

PRETRAIN = Stage(
    name="pretrain",
    purpose="test",
    for_domains=("code",),
    tokens=100 * 2048,
    context=256,
    batch_tokens=2048,
    mixture={"code": 1.0},
    lr=1e-3,
    schedule="cosine",
    warmup_steps=10,
    final_lr=0.1,
    capacity_factor=1.5,
)
STAGES = (PRETRAIN, replace(PRETRAIN, name="sft", tokens=50 * 2048))


class Clock:
    """A clock that stands still until it is moved."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def state_after(number: int) -> RunState:
    state = RunState(STAGES, began=0.0)
    state.start("pretrain", 0)
    for event in list(events("pretrain", 100))[:number]:
        state.take(event)
    return state


def panel_text(state: RunState, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), record=True, color_system=None)
    console.print(train_panel("nano", state, width, now=61.0))
    return console.export_text()


def test_the_time_left_follows_from_speed_and_plan() -> None:
    state = RunState(STAGES, began=0.0)
    state.start("pretrain", 0)
    assert state.stage_left() is None and state.run_left() is None
    state.take(step(40, tok_s=2048.0))
    assert state.share == 0.4
    assert state.stage_left() == pytest.approx(60)
    assert state.run_left() == pytest.approx(110)
    state.start("sft", 10)
    state.take(step(11, stage="sft", tok_s=4096.0))
    assert state.run_left() == state.stage_left() == pytest.approx(39 / 2)


def test_speed_is_smoothed_over_time_not_over_rates() -> None:
    state = RunState(STAGES, began=0.0)
    state.start("pretrain", 0)
    for number, tok_s in enumerate((1000.0, 500.0), start=1):
        state.take(step(number, tok_s=tok_s))
    assert state.tok_s == pytest.approx(1 / (0.9 / 1000 + 0.1 / 500))


def test_troubles_are_counted_and_the_last_alarm_kept() -> None:
    state = state_after(10)
    for number in (11, 12):
        state.take(StepSkipped("pretrain", number, "", float("nan"), 1.0, (), ()))
    assert (state.step, state.skipped) == (12, 2)
    state.take(RolledBack("pretrain", 12, 7, ""))
    assert (state.step, state.rolled_back) == (7, 1)
    state.take(Alarm("pretrain", 12, "collapse", "first"))
    state.take(Alarm("pretrain", 13, "collapse", "second"))
    assert state.alarm is not None and state.alarm.message == "second"
    state.take(ExpertLoads("pretrain", 13, ((1,),)))
    assert state.step == 7


def test_a_trend_points_where_the_curve_goes() -> None:
    for values, direction in (
        ([5 - 0.01 * i for i in range(200)], -1),
        ([5 + 0.01 * i for i in range(200)], 1),
        ([5.0] * 200, 0),
    ):
        trend = Trend()
        for value in values:
            trend.add(value)
        assert trend.direction == direction


@given(st.integers(1, 2000), st.integers(0, 9))
@settings(max_examples=30)
def test_a_trend_keeps_the_whole_stage_in_bounded_memory(count: int, seed: int) -> None:
    draw = random.Random(seed)
    values = [draw.uniform(-9, 9) for _ in range(count)]
    trend = Trend()
    for value in values:
        trend.add(value)
    trend.add(float("nan"))
    assert len(trend.points) < HISTORY
    covered = len(trend.points) * trend._stride + len(trend._open)
    assert covered == len(values)
    total = sum(trend.points) * trend._stride + sum(trend._open)
    assert total == pytest.approx(sum(values), rel=1e-9, abs=1e-3)


def test_a_sparkline_falls_with_the_values() -> None:
    line = sparkline([10 - i for i in range(10)], 10)
    assert line[0] == line[1] == "█" and line[-1] == "▁"
    assert list(line) == sorted(line, reverse=True)
    assert len(sparkline(list(range(1000)), 20)) == 20
    assert sparkline([3.0] * 5, 9) == "▁▁▁▁▁"
    assert sparkline([3.0], 9) == ""


@pytest.mark.parametrize("width", [40, 56, 72, 80, 100, 120, 200])
@pytest.mark.parametrize("number", [0, 1, 70])
def test_the_panel_fits_every_terminal(width: int, number: int) -> None:
    text = panel_text(state_after(number), width)
    assert all(cell_len(line) <= min(width, 120) for line in text.splitlines())


@pytest.mark.parametrize("width", [56, 80, 120])
def test_the_panel_shows_every_measure(width: int) -> None:
    state = state_after(85)
    state.saved = (60, 31.0)
    text = panel_text(state, width)
    assert state.last is not None
    for shown in (
        "▸ pretrain (1 of 2)",
        f"{state.step} / 100 steps",
        f"{state.tok_s:,.0f} tok/s",
        f"{state.mfu.value:.1%} MFU",
        f"{state.loss.value:.3f}",
        f"{state.last.lr:.2e}",
        f"{state.last.grad_norm:.3g}",
        f"{state.last.dropped_share:.2%}",
        f"{state.last.worst_load:.2f}{TIMES}",
        f"{state.last.router_entropy:.3f}",
        "saved step 60, 30 s ago",
        "1 skipped",
        "⚠ step 72: layer 2: expert 7",
        "1 min 01 s",
    ):
        assert shown in text
    for name, trend in state.domains.items():
        assert name in text and f"{trend.value:.3f}" in text


def test_names_are_shown_as_they_are() -> None:
    state = state_after(3)
    state.take(step(4, domain_loss={"[red]web[/] :smile:": 2.0}))
    assert "[red]web[/] :" in panel_text(state, 120)


def plain_view(clock: Clock) -> tuple[TrainView, io.StringIO]:
    stream = io.StringIO()
    return TrainView("nano", STAGES, Console(file=stream, width=200), clock), stream


def test_without_a_terminal_there_is_a_line_now_and_then() -> None:
    clock = Clock()
    view, stream = plain_view(clock)
    with view:
        view.note("tokenising")
        view.started("pretrain", 20)
        for number in range(21, 61):
            clock.now += LINE_EVERY_SECONDS / 10
            view.show(step(number))
        view.saved(60)
        view.finished("pretrain")
    lines = stream.getvalue().splitlines()
    assert lines[0] == "tokenising"
    assert lines[1] == "▸ pretrain: 100 steps of 2,048 tokens, resumed at step 20"
    assert [line.split()[1] for line in lines[2:-1]] == ["30/100", "40/100", "50/100", "60/100"]
    assert all("tok/s" in line and "left" in line for line in lines[2:-1])
    assert lines[-1].startswith("✓ pretrain  0.20M tokens · 40 s · ") and "→" in lines[-1]
    assert "\x1b" not in stream.getvalue()


def test_a_preparation_is_a_line_now_and_then() -> None:
    clock = Clock()
    view, stream = plain_view(clock)
    with view:
        for done in range(26):
            view.preparing("tokenise [b]code", done, 25)
            clock.now += 1.0
    lines = stream.getvalue().splitlines()
    assert lines == [f"tokenise [b]code {done}/25" for done in (10, 20, 25)]


def test_without_a_terminal_trouble_is_said_at_once() -> None:
    view, stream = plain_view(Clock())
    with view:
        view.started("pretrain")
        view.show(StepSkipped("pretrain", 3, "loss [b]nan[/b]", float("nan"), 1.0, (7,), ("code",)))
        view.show(RolledBack("pretrain", 9, 4, "5 skips in a row"))
        view.show(Alarm("pretrain", 9, "collapse", "layer 2 has one expert"))
        view.finished("pretrain", resumed=True)
    assert stream.getvalue().splitlines()[1:] == [
        "⚠ pretrain step 3 skipped: loss [b]nan[/b]",
        "⚠ pretrain step 9 back to 4: 5 skips in a row",
        "⚠ pretrain step 9: layer 2 has one expert",
        "✓ pretrain  done earlier",
    ]


def test_on_a_terminal_the_panel_goes_and_what_was_said_stays() -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=80, force_terminal=True)
    with TrainView("nano", STAGES, console, Clock()) as view:
        view.started("pretrain")
        for event in events("pretrain", 60):
            view.show(event)
        view.finished("pretrain")
        view.preparing("score", 1, 2)
        view.say("stopped; --resume goes on")
    text = stream.getvalue()
    assert "stopped; --resume goes on" in text
    assert "▸" in text and "router entropy" in text
    assert "✓" in text and "loss is not finite" in text


def test_everything_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with TrainView("nano", STAGES) as view:
        view.started("pretrain")
        view.finished("pretrain")
    captured = capsys.readouterr()
    assert captured.out == "" and "pretrain" in captured.err


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (3599, "59 min 59 s"),
        (3725, "1 h 02 min"),
        (86400 * 2 + 3600 * 3.5, "2 d 03 h"),
    ],
)
def test_times_as_people_say_them(seconds: float, text: str) -> None:
    assert time_span(seconds) == text
