"""The page's section on the front: the figure, and some of its models as a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mobilemoe.page.markup import escape, paragraph, significant, table
from mobilemoe.plan.pictures.axis import bytes_text, count_text, power_text
from mobilemoe.plan.pictures.data import PlanData
from mobilemoe.plan.pictures.drawing import Drawing
from mobilemoe.plan.pictures.front import NBSP, FrontPoint, front_points
from mobilemoe.plan.pictures.sections import NO_LOSS, shown

FRONT_ROWS = 14


@dataclass(frozen=True)
class _Column:
    title: str
    of: Callable[[FrontPoint], float | None]
    form: Callable[[float], str]


_COLUMNS = (
    _Column("Loss", lambda point: point.loss, lambda loss: f"{loss:.3f}"),
    _Column("Memory", lambda point: point.memory_bytes, bytes_text),
    _Column("Active", lambda point: point.active_params, count_text),
    _Column("Tokens/s", lambda point: point.decode_tok_s, significant),
    _Column("First token", lambda point: point.ttft_s, lambda value: significant(value, "s")),
    _Column("Training", lambda point: point.training_flops, power_text),
)


def front_section(data: PlanData, drawing: Drawing) -> str:
    """Return the front and its table, lowest loss first."""
    points = front_points(data.plan, FRONT_ROWS)
    columns = [column for column in _COLUMNS if any(column.of(p) is not None for p in points)]
    rows = [[_front_name(p), *(_cell(column, p) for column in columns)] for p in points]
    head = ["Model", *(column.title for column in columns)]
    total = len(data.points)
    text = "" if total == len(points) else f"{len(points)} of the {total} models of the figure. "
    text += "Tied: within the fit's error of the lowest loss. * the law was not fitted there."
    listed = table(head, rows, "The Pareto front", "front")
    return shown(drawing) + listed + paragraph(text, "note")


def _front_name(point: FrontPoint) -> str:
    name = escape(point.name)
    return f"<b>{name}</b>, chosen" if point.chosen else name + (", tied" if point.tied else "")


def _cell(column: _Column, point: FrontPoint) -> str:
    value = column.of(point)
    star = f"{NBSP}*" if column.title == "Loss" and point.outside else ""
    return NO_LOSS if value is None else escape(column.form(value)) + star
