"""`mobilemoe plan --html FILE --pictures FOLDER`: a plan as a page, and its figures as files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mobilemoe.plan import MoELaw, Plan

HtmlOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write the plan as one HTML page.")
]
PicturesOption = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Write its figures as PNG and SVG.")
]


def write_pictures(
    result: Plan, law: MoELaw | None, html: Path | None, pictures: Path | None
) -> None:
    """Write the page and the figures that were asked for, and say so on stderr.

    Raises:
        MobileMoEError: if matplotlib is not installed, or the disk refuses.
    """
    if html is None and pictures is None:
        return
    from mobilemoe.atomic import atomic_write
    from mobilemoe.plan.pictures import plan_page, save_pictures

    if html is not None:
        atomic_write(html, plan_page(result, law=law))
        print(f"wrote {html}", file=sys.stderr)
    if pictures is not None:
        paths = save_pictures(result, pictures, law=law)
        print(f"wrote {len(paths)} files into {pictures}", file=sys.stderr)
