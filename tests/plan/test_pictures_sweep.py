"""Figures of a sweep: crossovers against a naive twin, and drawings of odd inputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilemoe.errors import MobileMoEError
from mobilemoe.page.canvas import NARROW, WIDE, Draw, picture, responsive
from mobilemoe.page.markup import MINUS
from mobilemoe.plan.pictures import Drawing, Panel, Point, Series, crossovers
from mobilemoe.plan.pictures.draw_gains import gains_drawing, heldout_drawing
from mobilemoe.plan.pictures.draw_sweep import (
    dense_crossovers,
    iso_flops_drawing,
    iso_memory_drawing,
)
from mobilemoe.plan.pictures.sweep import heldout_error


def series(points: Sequence[tuple[float, float]], experts: float = 1, label: str = "") -> Series:
    made = tuple(Point(x, y, y - 0.01, y + 0.01) for x, y in points)
    return Series(label or f"E = {experts:g}", made, experts)


def test_a_crossover_is_halfway_over_log_x() -> None:
    falling = series([(1e6, 3.0), (1e8, 2.0)])
    level = series([(1e6, 2.5), (1e8, 2.5)], 8)
    (point,) = crossovers(falling, level)
    assert point.x == pytest.approx(1e7) and point.y == pytest.approx(2.5)
    assert crossovers(level, falling)[0].x == pytest.approx(1e7)


def test_touching_is_no_crossing_and_meeting_at_a_point_is_one() -> None:
    level = series([(1.0, 0.0), (10.0, 0.0), (100.0, 0.0)])
    touching = series([(1.0, 1.0), (10.0, 0.0), (100.0, 1.0)])
    through = series([(1.0, 1.0), (10.0, 0.0), (100.0, -1.0)])
    assert crossovers(level, touching) == ()
    assert [point.x for point in crossovers(level, through)] == [10.0]
    assert crossovers(level, level) == ()


@pytest.mark.parametrize("other", [[], [(1e3, 0.0), (1e4, 1.0)], [(10.0, 0.5)]])
def test_curves_without_a_common_stretch_do_not_cross(other: list[tuple[float, float]]) -> None:
    assert crossovers(series([(1.0, 0.0), (10.0, 1.0)]), series(other)) == ()


LOSSES = st.lists(st.floats(1.0, 4.0), min_size=2, max_size=6)


@given(LOSSES, LOSSES, st.floats(1.5, 4.0))
@settings(max_examples=100, deadline=None)
def test_crossovers_are_those_of_a_fine_grid(a: list[float], b: list[float], step: float) -> None:
    one = series([(10.0 * 3.0**i, y) for i, y in enumerate(a)])
    two = series([(12.0 * step**i, y) for i, y in enumerate(b)])
    low = math.log(max(one.points[0].x, two.points[0].x))
    high = math.log(min(one.points[-1].x, two.points[-1].x))
    found = crossovers(one, two)
    if high <= low:
        assert found == ()
        return

    def gap(at: np.ndarray) -> np.ndarray:
        values = [
            np.interp(at, [math.log(p.x) for p in s.points], [p.y for p in s.points])
            for s in (one, two)
        ]
        return np.asarray(values[0] - values[1])

    grid = np.linspace(low, high, 4001)
    signs = np.sign(gap(grid))
    signs = signs[signs != 0]
    changes = int((signs[1:] != signs[:-1]).sum())
    # Two crossings closer than the grid are seen by neither sign: never fewer, always even apart.
    assert len(found) >= changes and (len(found) - changes) % 2 == 0
    for point in found:
        assert abs(float(gap(np.array([math.log(point.x)]))[0])) < 1e-9


def test_rejects_points_that_are_none() -> None:
    for bad in ((math.nan, 1.0), (1.0, math.inf), (1.0, 2.0, 2.5, 3.0), (1.0, 2.0, 1.0, 1.5)):
        with pytest.raises(MobileMoEError, match="low <= y <= high"):
            Point(*bad)
    assert Point(1.0, 2.0).bounds == (2.0, 2.0)
    with pytest.raises(MobileMoEError, match="positive"):
        crossovers(series([(0.0, 1.0)]), series([(1.0, 1.0)]))


def test_held_out_errors_are_absolute() -> None:
    mean, worst = heldout_error((Point(2.0, 2.1), Point(2.0, 1.7)))
    assert mean == pytest.approx(0.2) and worst == pytest.approx(0.3)
    with pytest.raises(MobileMoEError, match="at least one"):
        heldout_error(())


def test_only_measured_series_cross_dense() -> None:
    dense, eight = series([(1.0, 0.0), (100.0, 2.0)]), series([(1.0, 1.0), (100.0, 1.0)], 8)
    fitted = Series("fit", eight.points, 8, predicted=True)
    assert [s.experts for s, _ in dense_crossovers(Panel("", (dense, eight, fitted)))] == [8]
    assert dense_crossovers(Panel("", (eight, fitted))) == []
    assert dense_crossovers(Panel("", (Series("empty", ()), eight))) == []


FULL = Panel(
    "3e20 FLOPs",
    (
        series([(1e6, 3.0), (3e6, 2.7), (9e6, 2.6)]),
        series([(1e6, 2.8), (3e6, 2.75), (9e6, 2.65)], 8),
        Series("law", (Point(1e6, 2.9), Point(9e6, 2.6)), 8, predicted=True),
    ),
)
ODD = [
    [FULL],
    [FULL, FULL, FULL, FULL],
    [Panel("one point", (series([(1e6, 2.0)]),))],
    [Panel("empty", ())],
    [Panel("no points", (Series("none", ()),))],
    [Panel("$\\frac{a$ <b>", (series([(1e6, 2.0), (2e6, 1.9)], 4, "<&> $x$"),))],
    [],
]
MAKERS: tuple[Callable[[Sequence[Panel]], Drawing], ...] = (
    iso_flops_drawing,
    iso_memory_drawing,
    gains_drawing,
    lambda panels: heldout_drawing([s for panel in panels for s in panel.series]),
)


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("panels", ODD)
def test_anything_can_be_drawn(
    maker: Callable[[Sequence[Panel]], Drawing], panels: list[Panel]
) -> None:
    drawing = maker(panels)
    html = responsive(drawing.name, drawing.words, drawing.draw)
    assert html.count("<svg") == 2 and "nan" not in html.lower()
    assert drawing.words.endswith(".") and drawing.caption


def axes_of(draw: Draw, width: int = WIDE) -> list:  # type: ignore[type-arg]
    return [axes for axes in draw(width).axes if axes.axison]


def test_iso_panels_share_their_scale_and_stack_on_a_phone() -> None:
    drawing = iso_flops_drawing([FULL, FULL])
    wide, narrow = axes_of(drawing.draw), axes_of(drawing.draw, NARROW)
    assert len(wide) == len(narrow) == 2
    assert wide[0].get_ylim() == wide[1].get_ylim()
    assert wide[0].get_position().y0 == wide[1].get_position().y0
    assert narrow[0].get_position().y0 > narrow[1].get_position().y0


def test_a_ring_marks_every_crossover() -> None:
    (axes,) = axes_of(iso_memory_drawing([FULL]).draw)
    (found,) = dense_crossovers(FULL)
    rings = [line for line in axes.lines if line.get_markersize() == 12]
    assert [(ring.get_xdata()[0], ring.get_ydata()[0]) for ring in rings] == [
        (found[1].x, found[1].y)
    ]


def test_gains_say_their_intervals() -> None:
    gain = Series("E = 8", (Point(0, -0.0312, -0.04, 0.002),), 8)
    drawing = gains_drawing([Panel("Experts", (gain,))])
    assert "E = 8 -0.0312 (-0.0400 to +0.0020)" in drawing.words.replace(MINUS, "-")
    low, high = axes_of(drawing.draw)[0].get_xlim()
    assert low < -0.04 and high > 0.002
    assert picture(drawing.draw, "png").startswith(b"\x89PNG")


def test_the_diagonal_of_held_out_runs_is_square() -> None:
    (axes,) = axes_of(heldout_drawing([series([(2.0, 2.1), (2.5, 2.4)], 8)]).draw)
    assert axes.get_xlim() == axes.get_ylim()
    low, high = axes.get_xlim()
    assert low < 2.0 and high > 2.5
