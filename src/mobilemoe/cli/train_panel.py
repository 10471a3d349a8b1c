"""The panel of a running training: where it is, how fast, how well, and what went wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mobilemoe.cli.train_state import RunState, Trend
from mobilemoe.cli.units import time_span
from mobilemoe.page.markup import TIMES

BLOCKS = "▁▂▃▄▅▆▇█"
ARROWS = {-1: ("↘", "green"), 0: ("→", "dim"), 1: ("↗", "red")}
ONE_COLUMN = 66  # below this width the two tables stand under each other
WIDEST = 120
NAME_WIDTH = 14  # of a domain; longer ones end in an ellipsis
VALUE_WIDTH = 14  # of a loss, its arrow and the gaps around them
SIGNS_WIDTH, GAP = 24, 5
CURVE_WIDTHS = (8, 54)
CLIPPED = 0.1  # of a curve's highest points: the first steps would flatten all others


def train_panel(run: str, state: RunState, width: int, now: float) -> Panel:
    """Return the panel of the run called `run` for a terminal of `width` columns."""
    wide = min(width, WIDEST)
    inner = wide - 6
    parts: list[RenderableType] = [_stages(state), _bar(state, inner), _speed(state, inner)]
    if state.last is not None:
        parts += ["", _numbers(state, inner)]
    parts += ["", *_footer(state, now)]
    title = Text.assemble((run, "bold"), f" · {time_span(now - state.began)}")
    return Panel(
        Group(*parts),
        title=title,
        title_align="left",
        border_style="dim",
        width=wide,
        padding=(0, 2),
    )


def _stages(state: RunState) -> Text:
    """Name all stages: done, running, to come."""
    text = Text(no_wrap=True, overflow="ellipsis")
    here = state.index
    for index, stage in enumerate(state.stages):
        text.append("  " if index else "")
        if here is not None and index < here:
            text.append("✓ ", "green").append(stage.name, "dim")
        elif index == here:
            text.append("▸ ", "cyan").append(stage.name, "bold")
            text.append(f" ({index + 1} of {len(state.stages)})", "dim")
        else:
            text.append(f"· {stage.name}", "dim")
    return text


def _bar(state: RunState, inner: int) -> Table:
    steps = f"{state.step:,} / {state.stage.steps:,} steps" if state.stage else ""
    grid = Table.grid(padding=(0, 2))
    length = max(10, inner - len(steps) - 9)
    bar = ProgressBar(
        total=1.0, completed=state.share, width=length, complete_style="cyan", finished_style="cyan"
    )
    grid.add_row(bar, f"{state.share:>4.0%}", Text(steps, "dim"))
    return grid


def _speed(state: RunState, inner: int) -> Text:
    """Return speed and time left in one line, or what is being prepared."""
    tok_s, stage_left, run_left = state.tok_s, state.stage_left(), state.run_left()
    if tok_s is None or stage_left is None or run_left is None:
        return Text(state.note or "waiting for the first step", "dim", overflow="ellipsis")
    parts = [(f"{tok_s:,.0f}", " tok/s")]
    if state.mfu.value is not None:
        parts.append((f"{state.mfu.value:.1%}", " MFU"))
    parts.append((time_span(stage_left), " left"))
    if state.index is not None and state.index + 1 < len(state.stages):
        parts.append((time_span(run_left), " for all stages" if inner >= ONE_COLUMN else " in all"))
    text = Text()
    for index, (value, unit) in enumerate(parts):
        text.append("   " if index and inner >= ONE_COLUMN else "  " if index else "")
        text.append(value, "bold").append(unit, "dim")
    return text


def _numbers(state: RunState, inner: int) -> RenderableType:
    signs = _signs(state)
    longest = max(map(len, ("loss", *state.domains)))
    room = inner - min(NAME_WIDTH, longest) - VALUE_WIDTH
    if inner < ONE_COLUMN:
        return Group(_losses(state, room), "", signs)
    grid = Table.grid(padding=(0, GAP, 0, 0))
    grid.add_row(_losses(state, room - SIGNS_WIDTH - GAP), signs)
    return grid


def _losses(state: RunState, length: int) -> Table:
    """Return the loss and that of each domain, smoothed, with curve and direction."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(max_width=NAME_WIDTH, no_wrap=True, overflow="ellipsis")
    table.add_column(justify="right")
    table.add_row(Text("loss", "bold"), *_trend(state.loss, length, "bold"))
    for name, trend in sorted(state.domains.items()):
        table.add_row(Text(name), *_trend(trend, length, ""))
    return table


def _trend(trend: Trend, length: int, style: str) -> tuple[Text, Text, Text]:
    value = "-" if trend.value is None else f"{trend.value:.3f}"
    arrow, colour = ARROWS[trend.direction]
    low, high = CURVE_WIDTHS
    curve = sparkline(trend.points, max(low, min(length, high)))
    return Text(value, style), Text(arrow, colour), Text(curve, "cyan")


def sparkline(values: Sequence[float], length: int) -> str:
    """Draw `values` as at most `length` blocks; the highest tenth is clipped."""
    if len(values) < 2:
        return ""
    count = min(length, len(values))
    edges = [round(index * len(values) / count) for index in range(count + 1)]
    means = [sum(values[low:high]) / (high - low) for low, high in pairwise(edges)]
    ordered = sorted(means)
    low, high = ordered[0], ordered[int((1 - CLIPPED) * (len(ordered) - 1))]
    scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(BLOCKS[min(len(BLOCKS) - 1, round((mean - low) * scale))] for mean in means)


def _signs(state: RunState) -> Table:
    """Return the vital signs of the optimiser and the router."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column(justify="right", min_width=8)
    last = state.last
    if last is None:
        return table
    table.add_row("learning rate", f"{last.lr:.2e}")
    table.add_row("gradient norm", f"{last.grad_norm:.3g}")
    table.add_row("dropped", f"{last.dropped_share:.2%}")
    table.add_row("worst expert", f"{last.worst_load:.2f}{TIMES}")
    table.add_row("router entropy", f"{last.router_entropy:.3f}")
    return table


def _footer(state: RunState, now: float) -> Iterator[Text]:
    """Yield the last save and the troubles so far."""
    text = Text()
    if state.saved is None:
        text.append("nothing saved yet", "dim")
    else:
        step, moment = state.saved
        text.append(f"saved step {step:,}, {time_span(now - moment)} ago", "dim")
    for count, word in ((state.skipped, "skipped"), (state.rolled_back, "rolled back")):
        text.append(" · ", "dim").append(f"{count} {word}", "yellow" if count else "dim")
    yield text
    if state.alarm is not None:
        alarm = state.alarm
        line = f"⚠ step {alarm.step:,}: {alarm.message}"
        yield Text(line.replace("\n", " "), "yellow", overflow="ellipsis", no_wrap=True)
