"""Tables and pictures of docs/results/scaling.md, from the rows of the sweep and its fit.

    python benchmarks/sweep_tables.py [--pictures docs/results]

`tests/test_results.py` compares the page with what this prints.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from math import log, sqrt
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from scipy.stats import t as student

from mobilemoe.atomic import atomic_write
from mobilemoe.page.canvas import picture
from mobilemoe.plan.law import MoELaw
from mobilemoe.plan.pictures.draw_gains import gains_drawing, heldout_drawing
from mobilemoe.plan.pictures.draw_sweep import iso_flops_drawing, iso_memory_drawing
from mobilemoe.plan.pictures.sweep import Panel, Point, Series

RESULTS = Path(__file__).parent / "results"
FLOPS = 6  # of training, per active parameter and token
ISO_FLOPS = (4.5e11, 8e11, 1.2e12)  # each met by two sizes within the swept tokens
Row = Mapping[str, Any]
Rows = Sequence[Row]
COEFFICIENTS = ("a", "delta", "alpha", "gamma", "b", "omega", "beta", "zeta", "c")
PUBLISHED = {"alpha": -0.2833, "gamma": 0.0387, "beta": -0.3210, "zeta": -0.3684}


def load() -> tuple[Rows, dict[str, Any]]:
    """Return the rows and the fit that are kept."""
    lines = (RESULTS / "sweep_nano.jsonl").read_text(encoding="utf-8").splitlines()
    fit = json.loads((RESULTS / "sweep_fit.json").read_text(encoding="utf-8"))
    return [json.loads(line) for line in lines], fit


def family(rows: Rows) -> Rows:
    """Return the runs of the E sweep: granularity 8 with a shared expert, or dense."""
    return [
        row
        for row in rows
        if row["expert_equivalents"] == 1 or (row["granularity"], row["shared_expert"]) == (8, True)
    ]


def place(row: Row) -> tuple[Any, ...]:
    """Return what two runs that are compared must have in common."""
    return row["size"], row["tokens"], row["seed"]


def gaps(rows: Rows, reference: Rows) -> list[float]:
    """Return loss minus the loss of the reference run at the same size, tokens and seed."""
    base = {place(row): row["loss"] for row in reference}
    return [row["loss"] - base[place(row)] for row in rows if place(row) in base]


def interval(values: Sequence[float]) -> Point:
    """Return the mean and its 95 % interval (Student's t over the pairs)."""
    middle = mean(values)
    if len(values) < 2:
        return Point(0, middle)
    half = student.ppf(0.975, len(values) - 1) * stdev(values) / sqrt(len(values))
    return Point(0, middle, middle - half, middle + half)


def sizes_table(rows: Rows) -> str:
    """Return what was trained at each size: parameters, bytes and the router's share."""
    lines = [
        "| size | E | active | of it routers | total | INT4 bytes |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    seen = {(r["active_params"], r["expert_equivalents"]): r for r in family(rows)}
    for _, row in sorted(seen.items()):
        share = row["router_params"] / row["active_params"]
        lines.append(
            f"| {row['size']} | {row['expert_equivalents']} | {row['active_params']:,} "
            f"| {share:.1%} | {row['total_params']:,} | {row['weight_bytes']:,} |"
        )
    return "\n".join(lines)


def loss_table(rows: Rows) -> str:
    """Return the held-out loss of every size, token budget and E, means over seeds."""
    experts = sorted({row["expert_equivalents"] for row in family(rows)})
    lines = [
        f"| size | tokens | seeds | {' | '.join(f'E = {e}' for e in experts)} |",
        f"|---|---:|---:|{'---:|' * len(experts)}",
    ]
    cells: dict[tuple[str, int], dict[int, list[float]]] = {}
    for row in family(rows):
        cell = cells.setdefault((row["size"], row["tokens"]), {})
        cell.setdefault(row["expert_equivalents"], []).append(row["loss"])
    for (size, tokens), cell in sorted(cells.items(), key=lambda item: (item[0][1], item[0][0])):
        values = [f"{mean(cell[e]):.3f}" if e in cell else "" for e in experts]
        seeds = max(map(len, cell.values()))
        lines.append(f"| {size} | {tokens:,} | {seeds} | {' | '.join(values)} |")
    return "\n".join(lines)


def gain_panels(rows: Rows) -> list[Panel]:
    """Return the change of loss per E, per g and for the shared expert, with intervals."""
    by_e, dense = family(rows), [r for r in rows if r["expert_equivalents"] == 1]
    routed = [r for r in rows if r["expert_equivalents"] == 8 and not r["shared_expert"]]
    fine = [r for r in routed if r["granularity"] == 8]
    shared = [r for r in by_e if r["expert_equivalents"] == 8]

    def line(label: str, experts: float, some: Rows, reference: Rows) -> Series:
        values = gaps(some, reference)
        return Series(f"{label} ({len(values)})", (interval(values),), experts)

    experts = sorted({r["expert_equivalents"] for r in by_e} - {1})
    return [
        Panel(
            "E against dense",
            tuple(
                line(f"E = {e}", e, [r for r in by_e if r["expert_equivalents"] == e], dense)
                for e in experts
            ),
        ),
        Panel(
            "doubling E",
            tuple(line(f"{e // 2} to {e}", e, _of(by_e, e), _of(by_e, e // 2)) for e in experts),
        ),
        Panel(
            "g against g = 8, all routed",
            tuple(
                line(f"g = {g}", 8, [r for r in routed if r["granularity"] == g], fine)
                for g in sorted({r["granularity"] for r in routed} - {8})
            ),
        ),
        Panel("a shared expert against none", (line("shared", 8, shared, fine),)),
    ]


def _of(rows: Rows, experts: int) -> Rows:
    return [row for row in rows if row["expert_equivalents"] == experts]


def gains_table(rows: Rows) -> str:
    """Return the gains as a table: mean, interval and the number of pairs."""
    lines = ["| comparison | change of loss | 95 % interval | pairs |", "|---|---:|---:|---:|"]
    for panel in gain_panels(rows):
        for series in panel.series:
            point, (name, pairs) = series.points[0], series.label.rstrip(")").split(" (")
            low, high = point.bounds
            span = f"{low:+.3f} to {high:+.3f}" if point.low is not None else ""
            lines.append(f"| {panel.title}: {name} | {point.y:+.3f} | {span} | {pairs} |")
    return "\n".join(lines)


def fit_table(fit: Mapping[str, Any]) -> str:
    """Return our coefficients with intervals, beside the published ones that have no units."""
    share = f"{fit['confidence']:.0%}"
    lines = [f"| coefficient | ours | {share} interval | published |", "|---|---:|---:|---:|"]
    found = {each["name"]: each for each in fit["coefficients"]}
    for name in COEFFICIENTS:
        low, high = found[name]["interval"]["low"], found[name]["interval"]["high"]
        published = f"{PUBLISHED[name]:+.4f}" if name in PUBLISHED else ""
        lines.append(
            f"| {name} | {found[name]['value']:+.4f} | {low:+.4f} to {high:+.4f} | {published} |"
        )
    return "\n".join(lines)


def error_table(fit: Mapping[str, Any]) -> str:
    """Return the error on what was left out of the fit."""
    names = {"active_params": "active parameters", "tokens": "tokens", "expert_equivalents": "E"}
    lines = ["| left out | runs | RMSE | bias | |", "|---|---:|---:|---:|---|"]
    for held in fit["held_out"]:
        where = "extrapolated" if held["at_edge"] else "between others"
        lines.append(
            f"| {names[held['axis']]} {held['value']:,.0f} | {held['runs']} | {held['rmse']:.3f} "
            f"| {held['bias']:+.3f} | {where} |"
        )
    for name, runs in predicted(fit).items():
        errors = [run["predicted"] - run["loss"] for run in runs]
        rmse = sqrt(mean(error**2 for error in errors))
        where = "between others" if name == "a fifth in turn" else "extrapolated"
        lines.append(f"| {name} | {len(runs)} | {rmse:.3f} | {mean(errors):+.3f} | {where} |")
    return "\n".join(lines)


def predicted(fit: Mapping[str, Any]) -> Mapping[str, Rows]:
    """Return the predictions of each refit."""
    found: dict[str, list[Row]] = {}
    for run in fit["predictions"]:
        found.setdefault(run["left_out"], []).append(run)
    return found


def law_of(fit: Mapping[str, Any], rows: Rows) -> MoELaw:
    """Return the fitted law."""
    own = family(rows)
    values = {each["name"]: each["value"] for each in fit["coefficients"]}
    return MoELaw(
        **values,
        rmse=fit["rmse"],
        active_grid=tuple(sorted({float(r["active_params"]) for r in own})),
        token_grid=tuple(sorted({float(r["tokens"]) for r in own})),
        expert_grid=tuple(sorted({r["expert_equivalents"] for r in own})),
        unit_active=fit["units"]["active_params"],
        unit_tokens=fit["units"]["tokens"],
    )


def iso_flops_panels(rows: Rows, law: MoELaw) -> list[Panel]:
    """Return measured points, interpolated in tokens, and the law, at equal training FLOPs."""
    panels = []
    for flops in ISO_FLOPS:
        series = []
        for experts in law.expert_grid:
            own = _of(family(rows), experts)
            points = _interpolated(own, lambda r: r["active_params"], flops)
            curve = _curve(law, experts, flops)
            if points:
                series.append(Series(_name(experts), points, experts))
            series.append(Series(_name(experts), curve, experts, predicted=True))
        panels.append(Panel(f"{flops:.1e} training FLOPs", tuple(series)))
    return panels


def _curve(law: MoELaw, experts: int, flops: float) -> tuple[Point, ...]:
    low, high = law.active_grid[0], law.active_grid[-1]
    sizes = [low * (high / low) ** (i / 24) for i in range(25)]
    tokens = [(n, flops / (FLOPS * n)) for n in sizes]
    inside = [(n, d) for n, d in tokens if law.token_grid[0] <= d <= law.token_grid[-1]]
    return tuple(
        Point(n, law.predict(active_params=n, tokens=d, num_experts=experts).loss)
        for n, d in inside
    )


def _interpolated(rows: Rows, x: Callable[[Row], float], flops: float) -> tuple[Point, ...]:
    """Return each size's loss at the tokens that `flops` pay for, between two measured budgets."""
    points = []
    for size in sorted({row["size"] for row in rows}):
        own = _means(row for row in rows if row["size"] == size)
        tokens = flops / (FLOPS * own[0][1]["active_params"])
        for (low, row, loss), (high, _, loss_there) in pairwise(own):
            if low <= tokens <= high:
                share = log(tokens / low) / log(high / low)
                points.append(Point(x(row), loss + share * (loss_there - loss)))
                break
    return tuple(points)


def _means(rows: Iterable[Row]) -> list[tuple[float, Row, float]]:
    """Return tokens, a row and the mean loss over seeds of each token budget, in order."""
    found: dict[int, list[Row]] = {}
    for row in rows:
        found.setdefault(row["tokens"], []).append(row)
    return [
        (float(tokens), some[0], mean(row["loss"] for row in some))
        for tokens, some in sorted(found.items())
    ]


def iso_memory_panels(rows: Rows) -> list[Panel]:
    """Return loss over INT4 bytes: at equal tokens as measured, and at equal training FLOPs."""
    panels = []
    for tokens in sorted({row["tokens"] for row in family(rows)}):
        series = []
        for experts in sorted({row["expert_equivalents"] for row in family(rows)}):
            own = [row for row in _of(family(rows), experts) if row["tokens"] == tokens]
            sizes = sorted({row["weight_bytes"] for row in own})
            points = tuple(
                Point(size, mean(row["loss"] for row in own if row["weight_bytes"] == size))
                for size in sizes
            )
            series.append(Series(_name(experts), points, experts))
        panels.append(Panel(f"{tokens:,} tokens", tuple(series)))
    for flops in ISO_FLOPS[1:2]:
        series = [
            Series(
                _name(experts),
                _interpolated(_of(family(rows), experts), lambda r: r["weight_bytes"], flops),
                experts,
            )
            for experts in sorted({row["expert_equivalents"] for row in family(rows)})
        ]
        panels.append(Panel(f"{flops:.1e} training FLOPs", tuple(series)))
    return panels


def _name(experts: int) -> str:
    return "dense" if experts == 1 else f"E = {experts}"


def heldout_series(fit: Mapping[str, Any]) -> list[Series]:
    """Return predicted against measured, a series for each refit."""
    return [
        Series(f"left out: {name}", tuple(Point(run["predicted"], run["loss"]) for run in runs), e)
        for e, (name, runs) in zip((2, 1, 8, 32), predicted(fit).items(), strict=True)
    ]


def draw(rows: Rows, fit: Mapping[str, Any], folder: Path) -> None:
    """Write the four pictures."""
    law = law_of(fit, rows)
    drawings = (
        iso_flops_drawing(iso_flops_panels(rows, law)),
        iso_memory_drawing(iso_memory_panels(rows)),
        gains_drawing(gain_panels(rows)),
        heldout_drawing(heldout_series(fit)),
    )
    for drawing in drawings:
        atomic_write(folder / f"scaling-{drawing.name}.png", picture(drawing.draw, "png"))


def main() -> None:
    """Print the tables and draw what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=Path, default=None)
    arguments = parser.parse_args()
    rows, fit = load()
    for part in (sizes_table(rows), loss_table(rows), gains_table(rows)):
        print(part, end="\n\n")
    print(fit_table(fit), error_table(fit), sep="\n\n")
    if arguments.pictures is not None:
        draw(rows, fit, arguments.pictures)


if __name__ == "__main__":
    main()
