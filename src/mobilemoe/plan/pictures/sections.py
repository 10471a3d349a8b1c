"""The page's sections on what the models cost and reach: a figure, and its numbers as a table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mobilemoe.page.canvas import responsive
from mobilemoe.page.markup import (
    MISSING,
    count,
    decimal,
    escape,
    figure,
    megabytes,
    paragraph,
    significant,
    table,
)
from mobilemoe.plan.pictures.axis import (
    bytes_text,
    count_text,
    experts_label,
    money_text,
    power_text,
)
from mobilemoe.plan.pictures.cost import CostCurve, CostPoint
from mobilemoe.plan.pictures.data import PlanData
from mobilemoe.plan.pictures.draw_latency import seconds_text
from mobilemoe.plan.pictures.drawing import Drawing
from mobilemoe.plan.pictures.front import NBSP
from mobilemoe.plan.pictures.memory import MemoryParts
from mobilemoe.plan.pictures.regions import Regions

NO_LOSS = '<span class="missing">not predicted</span>'
NO_DEVICE = "No device was named, so no speed is predicted."


def shown(drawing: Drawing) -> str:
    """Return a figure as HTML with its caption and its text alternative."""
    return figure(responsive(drawing.name, drawing.words, drawing.draw), drawing.caption)


def regions_section(data: PlanData, drawing: Drawing | None) -> str:
    """Return the map with a coarse table of it, or why there is none."""
    if drawing is None:
        text = (
            "There is no map of budget regions: the law was fitted nowhere near this budget, and "
            "what it says far outside its range is known to be wrong."
        )
        return paragraph(text, "absent")
    note = (
        "The same as a table, rows: training FLOPs, columns: memory. In brackets how much lower "
        f"the loss is than the runner-up's; the fit's error is {data.law.rmse:g}. "
        "* extrapolated."
    )
    return shown(drawing) + paragraph(note, "note") + _regions_table(data.regions)


def _regions_table(found: Regions, most: int = 5) -> str:
    columns = _evenly(len(found.memory_M), most)
    rows = _evenly(len(found.flops_C), most)[::-1]
    head = ["", *(escape(bytes_text(found.memory_M[m])) for m in columns)]
    cells = [
        [escape(power_text(found.flops_C[c])), *(_winner(found, c, m) for m in columns)]
        for c in rows
    ]
    return table(head, cells, "The best expert count for each budget", "regions")


def _evenly(length: int, most: int) -> list[int]:
    return sorted({round(x) for x in np.linspace(0, length - 1, min(length, most))})


def _winner(found: Regions, c: int, m: int) -> str:
    if not found.fits_CM[c, m]:
        return '<span class="missing">nothing fits</span>'
    label = experts_label(found.experts[found.winner_CM[c, m]])
    margin = float(found.margin_CM[c, m])
    text = f" ({margin:.4f})" if np.isfinite(margin) else ""
    star = "" if found.trusted_CM[c, m] else f"{NBSP}*"
    return f'<span class="nb">{label}{star}</span>{text}'


def memory_section(data: PlanData, drawing: Drawing) -> str:
    """Return the memory of the chosen model by part over context."""
    return shown(drawing) + _memory_table(data.memory)


def _memory_table(parts: MemoryParts) -> str:
    at = _evenly(len(parts.contexts), 5)
    head = ["Part", *(f"{parts.contexts[index]:,}" for index in at)]
    rows = [
        [escape(name), *(megabytes(sizes[index]) for index in at)]
        for name, sizes in parts.parts.items()
    ]
    rows.append(["<b>Total</b>", *(megabytes(parts.totals[index]) for index in at)])
    return table(head, rows, "Memory by part at several contexts", "memory")


def cost_section(data: PlanData, drawing: Drawing) -> str:
    """Return what training costs, for the chosen model and its rivals."""
    head = ["Model", "Tokens", "FLOPs", "Days", "GPU-hours", "Money", "Loss"]
    rows = [
        _cost_row(curve, curve.points[index])
        for curve in data.costs.curves
        for index in _evenly(len(curve.points), 3)
    ]
    late = any(not point.fits for curve in data.costs.curves for point in curve.points)
    note = "† one row at a time does not fit the memory of this GPU." if late else ""
    stars = "* extrapolated: the law was not fitted there."
    return (
        shown(drawing)
        + table(head, rows, "The cost of training", "cost")
        + paragraph(f"{stars} {note}".strip(), "note")
    )


def _cost_row(curve: CostCurve, point: CostPoint) -> list[str]:
    star = f"{NBSP}*" if point.outside else ""
    return [
        escape(curve.trainee.name) + ("" if point.fits else " †"),
        count_text(point.tokens),
        escape(power_text(point.flops)),
        significant(point.days),
        count(point.gpu_hours),
        escape(money_text(point.money)),
        NO_LOSS if point.loss is None else f"{point.loss:.3f}{star}",
    ]


def latency_section(data: PlanData, drawing: Drawing | None) -> str:
    """Return what requests cost on the device, or that none was named."""
    if data.latencies is None or drawing is None:
        return paragraph(NO_DEVICE, "absent")
    head = ["Prompt + answer", "First token", "Per token", "In all", "Energy", "Money per 1,000"]
    rows = [
        [
            f"{cost.request.prompt_tokens:,} + {cost.request.new_tokens:,}",
            escape(seconds_text(cost.ttft_ms)),
            MISSING if cost.tpot_ms is None else escape(seconds_text(cost.tpot_ms)),
            escape(seconds_text(cost.total_ms)),
            significant(cost.joules, "J"),
            f"${decimal(1000 * cost.money, 3)}",
        ]
        for cost in data.latencies.costs
    ]
    return shown(drawing) + table(head, rows, "Latency, energy and money per request", "latency")


def law_section(data: PlanData, drawing: Drawing) -> str:
    """Return the law's curves, with the loss of every E where both panels meet."""
    curves = data.curves
    text = (
        f"At {count_text(curves.active_params)} active parameters and "
        f"{count_text(curves.tokens)} tokens:"
    )
    rows: Sequence[Sequence[str]] = [
        [experts_label(each), f"{data.law.mean_loss(each):.4f}", _at_middle(data, each)]
        for each in data.law.expert_grid
    ]
    head = ["", "Mean over the fitted sweep", text]
    return shown(drawing) + table(head, rows, "The law's loss for each E", "narrowtable")


def _at_middle(data: PlanData, experts: int) -> str:
    curves = data.curves
    loss = data.law.loss(
        active_params=curves.active_params,
        tokens=curves.tokens,
        num_experts=experts,
        extrapolate=True,
    )
    return f"{loss:.4f}"
