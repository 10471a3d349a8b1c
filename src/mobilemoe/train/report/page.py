"""The page of a training run, and its figures as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mobilemoe.atomic import atomic_write
from mobilemoe.page.markup import escape
from mobilemoe.page.needs import needs_matplotlib
from mobilemoe.page.style import style_sheet
from mobilemoe.train.report.record import RunRecord, read_run

if TYPE_CHECKING:
    from mobilemoe.train.report.curves import Drawing

_RULES = """
.heats{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,360px),1fr));
gap:20px 28px}
.heat p{display:flex;justify-content:space-between;gap:1em;margin:0 0 4px;max-width:none;
font-size:.82rem;color:var(--soft);font-variant-numeric:tabular-nums}
.heat p b{color:var(--ink)}.heat p:last-child{margin:3px 0 0;font-size:.76rem}
.heat div{position:relative}
.heat img{display:block;width:100%;height:100%;image-rendering:pixelated}
.heat picture{display:block;height:100%}
.heat i{position:absolute;top:0;bottom:0;width:2px;margin-left:-1px;background:var(--paper)}
.troubles td:last-child,.troubles thead th:last-child{text-align:left;width:58%;
overflow-wrap:anywhere}
summary{cursor:pointer;color:var(--soft)}
details pre{white-space:pre}details .command{overflow-x:auto;overflow-wrap:normal}
"""


def write_train_report(run_folder: Path) -> Path:
    """Write `report.html` and `figures/*.{svg,png}` into `run_folder`; return the page's path.

    The page is drawn from what the folder holds now, so it may be written while the run goes
    on: stages without a step are left out.

    Raises:
        MobileMoEError: if there is no run or no step yet, if a file of it is damaged, if the
            disk refuses, or if matplotlib is not installed.
    """
    with needs_matplotlib("the report draws its figures"):
        page, drawings = _page(read_run(run_folder))
        _write_figures(run_folder / "figures", drawings)
    path = run_folder / "report.html"
    atomic_write(path, page)
    return path


def render(run: RunRecord) -> str:
    """Return the page of a run, which loads nothing: the same run, the same bytes.

    Raises:
        MobileMoEError: if matplotlib is not installed.
    """
    with needs_matplotlib("the report draws its figures"):
        return _page(run)[0]


def _page(run: RunRecord) -> tuple[str, list[Drawing]]:
    """Return the page, and every figure that also becomes a file."""
    from mobilemoe.train.report import curves, heat, sections

    drawings = curves.drawings(run)
    shown = {drawing.name: sections.curve(drawing) for drawing in drawings}
    layers = heat.layer_loads(run)
    parts = (
        ("loss", "Loss", shown["loss"] + shown.get("domains", "")),
        ("stages", "The stages", sections.stages_section(run)),
        ("gradient", "Gradient", shown["gradient"]),
        ("signs", "Speed and routing", shown["signs"]),
        ("load", "Load of the experts", sections.heat_section(run, layers)),
        ("trouble", "What went wrong", sections.trouble_section(run)),
        ("recipe", "Recipe", sections.recipe_section(run)),
    )
    body = "\n".join(
        f'<section id="{name}"><h2><span class="n">{number}</span>{title}</h2>\n{part}</section>'
        for number, (name, title, part) in enumerate(parts, start=1)
    )
    if layers:
        words = "Load of every expert over tokens seen, a map for each layer"
        draw = curves.Drawing("load", words, lambda width: heat.draw_heat(run, layers, width))
        drawings = [*drawings, draw]
    return _document(escape(run.name), sections.headline(run), body), drawings


def _document(title: str, head: str, body: str) -> str:
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f"<title>{title} · training</title>\n<style>\n{style_sheet()}{_RULES}</style>\n</head>\n"
        f'<body>\n<main>\n<header id="result">{head}</header>\n{body}\n'
        "<footer>Made by mobilemoe. All numbers are in stages/*/metrics.jsonl, the figures as "
        "files in figures/, beside this page.</footer>\n</main>\n</body>\n</html>\n"
    )


def _write_figures(folder: Path, drawings: list[Drawing]) -> None:
    from mobilemoe.page.canvas import picture

    for drawing in drawings:
        atomic_write(folder / f"{drawing.name}.svg", picture(drawing.draw, "svg"))
        atomic_write(folder / f"{drawing.name}.png", picture(drawing.draw, "png"))
