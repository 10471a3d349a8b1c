"""`mobilemoe plan calibrate`: a device profile from documents of `mobilemoe bench`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mobilemoe.cli.output import JsonOption, print_json, print_table
from mobilemoe.cli.units import parse_bytes
from mobilemoe.errors import MobileMoEError

if TYPE_CHECKING:
    from mobilemoe.plan.device import Calibration

PLAN_CALIBRATE_EXAMPLES = (
    "\b\nExamples:\n"
    "  mobilemoe bench nano -p 128,512 -d 0,512 -t 1,2 -o json > nano.json\n"
    "  mobilemoe plan calibrate nano.json S.json --name laptop --out laptop.toml\n"
    "  mobilemoe plan device laptop.toml --model M"
)


def calibrate(
    documents: Annotated[
        list[Path],
        typer.Argument(metavar="BENCH.json...", help="Each one document, or a list of them."),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE.toml", help="The profile to write.")],
    name: Annotated[str, typer.Option(help="What to call the device.")],
    title: Annotated[str, typer.Option(help="Default: processor and cores.")] = "",
    cache: Annotated[
        int, typer.Option(parser=parse_bytes, metavar="BYTES", help="Last cache (lscpu: L3).")
    ] = "32MB",  # type: ignore[assignment]  # typer parses the default like an argument
    watts: Annotated[float, typer.Option(min=0, help="While it works; nobody measured it.")] = 15.0,
    electricity: Annotated[float, typer.Option(min=0, help="$/kWh.")] = 0.17,
    per_hour: Annotated[float, typer.Option(min=0, help="$/h of wear or rent.")] = 0.0,
    as_json: JsonOption = False,
) -> None:
    """Fit a profile of the machine that the benches ran on, and say what the fit is worth.

    The error is that on rows which the fit has not seen: each shape, context, thread count and
    row left out in turn.
    """
    from mobilemoe.atomic import atomic_write
    from mobilemoe.plan.device import Assumptions, dump_profile
    from mobilemoe.plan.device import calibrate as fit

    if out.suffix != ".toml":
        raise typer.BadParameter(f"--out is {out}; allowed: a name that ends in .toml")
    source = "not measured: as given to `mobilemoe plan calibrate`, or its default"
    stated = Assumptions(cache, watts, electricity, per_hour, source)
    read = [document for path in documents for document in _read(path)]
    found = fit(read, name, stated, title)
    atomic_write(out, dump_profile(found.profile))
    if as_json:
        print_json(_document(found, out))
    else:
        _print(found, out)


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MobileMoEError(
            f"cannot read {path}: {error}", hint="write it with `mobilemoe bench PATH -o json`"
        ) from error
    return content if isinstance(content, list) else [content]


def _errors(found: Calibration) -> dict[str, dict[str, float]]:
    """Return the median and the largest error of each way to leave rows out."""
    from mobilemoe.plan.device import median_error

    return {
        what: {
            "median_error": median_error(predictions),
            "largest_error": max(abs(one.error) for one in predictions),
        }
        for what, predictions in found.left_out.items()
    }


def _document(found: Calibration, out: Path) -> dict[str, Any]:
    return {
        "profile": str(out),
        "rows": len(found.rows),
        "left_out": _errors(found),
        "constants": {path: one.to_dict() for path, one in found.profile.constants()},
    }


def _print(found: Calibration, out: Path) -> None:
    rows = [
        (f"each {what}", f"{one['median_error']:.1%}", f"{one['largest_error']:.1%}")
        for what, one in _errors(found).items()
    ]
    title = f"{out}: {len(found.rows)} rows; errors on rows that were left out"
    print_table(title, ("left out in turn", "median", "largest"), rows)
    constants = [
        (path, f"{one.value:.4g} {one.unit}", one.origin) for path, one in found.profile.constants()
    ]
    print_table("The profile", ("constant", "value", "origin"), constants)
