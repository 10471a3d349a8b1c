"""A plan as one page that loads nothing, and its figures as files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, get_args

from mobilemoe.atomic import atomic_write
from mobilemoe.errors import MobileMoEError
from mobilemoe.page.markup import escape
from mobilemoe.page.needs import needs_matplotlib
from mobilemoe.page.style import style_sheet
from mobilemoe.plan.law import MoELaw
from mobilemoe.plan.pictures.data import GPU, GPUS, PlanData, plan_data
from mobilemoe.plan.pictures.drawing import Drawing
from mobilemoe.plan.pictures.front import candidate_name
from mobilemoe.plan.search import Plan

Kind = Literal["png", "svg"]
FIGURES_ARE_DRAWN = "figures are drawn"  # of the error for a missing matplotlib
_RULES = """
.reasons td,.rules td,.changes td,.inputs td,.reasons thead th,.rules thead th,
.changes thead th,.inputs thead th{text-align:left}
.reasons code{overflow-wrap:normal}.reasons td:last-child{min-width:13em}
.reasons td:last-child,.inputs td:last-child{width:46%;overflow-wrap:anywhere}
.rules tr>:last-child,.changes tr>:last-child{text-align:right}
.inputs{font-size:.84rem}.inputs td:nth-child(2){white-space:nowrap}
.front th,.cost th{white-space:nowrap}
"""


def plan_page(plan: Plan, *, law: MoELaw | None = None, gpu: str = GPU, gpus: int = GPUS) -> str:
    """Return the page of `plan`: the same plan, the same bytes.

    `law` is the one that the plan was made with, by default the published one; `gpu` and `gpus`
    are what training is priced on.

    Raises:
        MobileMoEError: if matplotlib is not installed, the GPU is unknown, or the GPUs make no
            layout.
    """
    data = plan_data(plan, law, gpu=gpu, gpus=gpus)
    with needs_matplotlib(FIGURES_ARE_DRAWN):
        return _page(data)


def save_pictures(
    plan: Plan,
    folder: Path,
    kinds: Sequence[Kind] = ("png", "svg"),
    *,
    law: MoELaw | None = None,
    gpu: str = GPU,
    gpus: int = GPUS,
) -> tuple[Path, ...]:
    """Write every figure of `plan` into `folder`, once for each kind; return their paths.

    Raises:
        MobileMoEError: as `plan_page`, for an unknown kind, or if the disk refuses.
    """
    for kind in kinds:
        if kind not in get_args(Kind):
            allowed = ", ".join(get_args(Kind))
            raise MobileMoEError(f"kinds: {kind!r}; allowed: {allowed}")
    data = plan_data(plan, law, gpu=gpu, gpus=gpus)
    with needs_matplotlib(FIGURES_ARE_DRAWN):
        return save_drawings(plan_drawings(data).values(), folder, kinds)


def save_drawings(
    drawings: Iterable[Drawing], folder: Path, kinds: Sequence[Kind] = ("png", "svg")
) -> tuple[Path, ...]:
    """Write `drawings` into `folder`, once for each kind; return their paths.

    Raises:
        MobileMoEError: if the disk refuses.
    """
    from mobilemoe.page.canvas import picture

    paths = []
    for drawing in drawings:
        for kind in kinds:
            path = folder / f"{drawing.name}.{kind}"
            atomic_write(path, picture(drawing.draw, kind))
            paths.append(path)
    return tuple(paths)


def plan_drawings(data: PlanData) -> dict[str, Drawing]:
    """Return the figures of a plan by name; those that would say nothing are left out.

    Raises:
        MobileMoEError: if matplotlib is not installed.
    """
    with needs_matplotlib(FIGURES_ARE_DRAWN):
        from mobilemoe.plan.pictures.draw_cost import cost_drawing
        from mobilemoe.plan.pictures.draw_front import front_drawing
        from mobilemoe.plan.pictures.draw_latency import latency_drawing
        from mobilemoe.plan.pictures.draw_law import law_drawing
        from mobilemoe.plan.pictures.draw_memory import memory_drawing
        from mobilemoe.plan.pictures.draw_regions import regions_drawing
    drawings = [front_drawing(data.points, data.law.rmse)]
    if data.regions.trusted_CM.any():
        drawings.append(regions_drawing(data.regions, data.budget))
    drawings.append(memory_drawing(data.memory, data.budget[0]))
    drawings.append(cost_drawing(data.costs))
    if data.latencies is not None:
        drawings.append(latency_drawing(data.latencies))
    drawings.append(law_drawing(data.curves))
    return {drawing.name: drawing for drawing in drawings}


def _page(data: PlanData) -> str:
    from mobilemoe.plan.pictures import sections, sections_choice, sections_front

    shown = plan_drawings(data)
    parts = (
        ("front", "What can be had", sections_front.front_section(data, shown["front"])),
        ("choice", "Why this one", sections_choice.choice_section(data.plan)),
        ("doubt", "How sure, and what would change it", sections_choice.doubt_section(data.plan)),
        ("regions", "Dense or experts", sections.regions_section(data, shown.get("regions"))),
        ("memory", "Where the memory goes", sections.memory_section(data, shown["memory"])),
        ("latency", "On the device", sections.latency_section(data, shown.get("latency"))),
        ("cost", "What training costs", sections.cost_section(data, shown["cost"])),
        ("law", "The scaling law", sections.law_section(data, shown["law"])),
        ("inputs", "What this rests on", sections_choice.inputs_section(data)),
    )
    body = "\n".join(
        f'<section id="{name}"><h2><span class="n">{number}</span>{title}</h2>\n{part}</section>'
        for number, (name, title, part) in enumerate(parts, start=1)
    )
    title = f"{escape(candidate_name(data.plan.chosen))} · plan"
    return _document(title, sections_choice.headline(data), body)


def _document(title: str, head: str, body: str) -> str:
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f"<title>{title}</title>\n<style>\n{style_sheet()}{_RULES}</style>\n</head>\n"
        f'<body>\n<main>\n<header id="result">{head}</header>\n{body}\n'
        "<footer>Made by mobilemoe. Losses are predictions of a scaling law, speeds of a device "
        "model; neither has seen this model.</footer>\n</main>\n</body>\n</html>\n"
    )
