"""The report of the main job: one HTML page that loads nothing, made from one dict."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mobilemoe.atomic import atomic_write
from mobilemoe.demo.headline import headline
from mobilemoe.demo.schema import Report
from mobilemoe.demo.validate import validate
from mobilemoe.errors import MobileMoEError
from mobilemoe.page.markup import escape, printable
from mobilemoe.page.style import style_sheet

# Section id and heading, in order.
SECTIONS = (
    ("design", "From a budget to an architecture"),
    ("training", "Four stages of training"),
    ("quantization", "What INT4 costs"),
    ("experts", "What the experts do"),
    ("files", "The files, to the byte"),
    ("speed", "Speed and memory"),
    ("parity", "Is it the same model?"),
    ("samples", "What it writes"),
    ("provenance", "How it was made"),
)


def render(report: Mapping[str, Any]) -> str:
    """Return the report as one self-contained HTML page.

    The same report gives the same page, to the byte. Parts that were not measured are named
    as such.

    Raises:
        MobileMoEError: if `report` is not a report of this schema version, or if matplotlib
            is not installed.
    """
    checked: Report = _printable(validate(report))  # figures draw text as it is
    bodies = _bodies(checked)
    sections = [
        f'<section id="{name}"><h2><span class="n">{number}</span>{title}</h2>\n'
        f"{bodies[name]}</section>"
        for number, (name, title) in enumerate(SECTIONS, start=1)
    ]
    version = escape(checked["versions"]["mobilemoe"])
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f"<title>{escape(checked['title'])}</title>\n<style>\n{style_sheet()}</style>\n</head>\n"
        f'<body>\n<main>\n<header id="result">{headline(checked)}</header>\n'
        + "\n".join(sections)
        + f"\n<footer>Made by mobilemoe {version}. All numbers are in report.json, beside this "
        "page.</footer>\n</main>\n</body>\n</html>\n"
    )


def _bodies(report: Report) -> dict[str, str]:
    try:
        from mobilemoe.demo import sections, sections_device
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "matplotlib":
            raise
        raise MobileMoEError(
            "the report draws its figures with matplotlib, which is not installed",
            hint="pip install 'mobilemoe[plots]'",
        ) from error
    return {
        "design": sections.design_section(report),
        "training": sections.training_section(report),
        "quantization": sections.quantization_section(report),
        "experts": sections.experts_section(report),
        "files": sections_device.files_section(report),
        "speed": sections_device.speed_section(report),
        "parity": sections_device.parity_section(report),
        "samples": sections_device.samples_section(report),
        "provenance": sections_device.provenance_section(report),
    }


def write_report(folder: Path, report: Mapping[str, Any]) -> tuple[Path, Path]:
    """Write `report.html` and `report.json` into `folder` and return their paths.

    Each file is replaced atomically. Numbers that JSON cannot hold (NaN) become null.

    Raises:
        MobileMoEError: as `render`; nothing is written then.
    """
    page = render(report)
    content = json.dumps(_plain(report), indent=1, ensure_ascii=True, allow_nan=False) + "\n"
    paths = (folder / "report.html", folder / "report.json")
    for path, text in zip(paths, (page, content), strict=True):
        atomic_write(path, text)
    return paths


def _printable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {printable(str(key)): _printable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_printable(item) for item in value]
    return printable(value) if isinstance(value, str) else value


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
