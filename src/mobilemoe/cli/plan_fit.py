"""`mobilemoe plan fit`: from a table of runs to a scaling law with intervals."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mobilemoe.cli.output import JsonOption, print_json
from mobilemoe.errors import MobileMoEError

if TYPE_CHECKING:
    from mobilemoe.plan.fit import FitOptions, TrainingRun

FIT_EXAMPLES = (
    "\b\nExamples:\n"
    "  mobilemoe plan fit runs.jsonl --only granularity=8 --out law.json\n"
    "  mobilemoe plan fit runs.csv --form dense --only expert_equivalents=1 --fix c=1.973\n"
    "  mobilemoe plan fit runs.csv --by shared_expert --share alpha,b,beta,c --json"
)


class FormChoice(StrEnum):
    """Forms of the law."""

    joint = "joint"
    dense = "dense"


class ByChoice(StrEnum):
    """What a fit can be made per."""

    granularity = "granularity"
    shared_expert = "shared_expert"


def fit(
    runs: Annotated[
        Path, typer.Argument(metavar="RUNS", help="Table of runs: .csv with a header, or .jsonl.")
    ],
    form: Annotated[
        FormChoice | None,
        typer.Option(help="joint: with terms in E; dense: one E (default with --by)."),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Take these runs: expert_equivalents, granularity or shared_expert. Repeatable.",
        ),
    ] = None,
    fix: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Hold a coefficient at a value. Repeatable."),
    ] = None,
    by: Annotated[
        ByChoice | None, typer.Option(help="One law for each granularity or shared expert.")
    ] = None,
    share: Annotated[
        str, typer.Option(metavar="NAMES", help="Coefficients in common with --by: alpha,b,c.")
    ] = "",
    c_towards: Annotated[
        float | None, typer.Option(help="Pull c there, as --c-strength runs would.")
    ] = None,
    c_strength: Annotated[float, typer.Option(help="Strength of --c-towards, in runs.")] = 1.0,
    huber: Annotated[
        float, typer.Option(help="Residual of ln(loss) from which it counts linearly.")
    ] = 1e-3,
    starts: Annotated[int, typer.Option(help="Random starts.")] = 64,
    bootstrap: Annotated[int, typer.Option(help="Draws for the intervals; 0: none.")] = 200,
    confidence: Annotated[float, typer.Option(help="Share of the draws in an interval.")] = 0.9,
    seed: Annotated[int, typer.Option(help="Of starts and draws.")] = 0,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the law there, as JSON.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Fit the scaling law to a table of training runs, with its uncertainty."""
    from mobilemoe.cli.plan_fit_view import fit_document, per_document, print_fit, print_per
    from mobilemoe.plan.fit import FitOptions, fit_law, fit_per
    from mobilemoe.plan.law import save_law

    options = FitOptions(
        huber=huber,
        starts=starts,
        bootstrap=bootstrap,
        confidence=confidence,
        seed=seed,
        c_towards=c_towards,
        c_strength=c_strength,
    )
    _check_together(by, share, out, options)
    table, fixed = _selected(runs, only or []), _fixed(fix or [])
    source = f"fit of {runs.name}"
    if by is not None:
        per = fit_per(
            table,
            by.value,
            form=(form or FormChoice.dense).value,
            shared=[name.strip() for name in share.split(",") if name.strip()],
            fixed=fixed,
            options=options,
            source=source,
        )
        print_json(per_document(per)) if as_json else print_per(per)
        return
    found = fit_law(
        table,
        form=(form or FormChoice.joint).value,
        fixed=fixed,
        options=options,
        source=source,
    )
    if out is not None:
        save_law(found.law, out)
    print_json(fit_document(found)) if as_json else print_fit(found, "The law")


def _check_together(by: ByChoice | None, share: str, out: Path | None, options: FitOptions) -> None:
    """Refuse options that would be ignored."""
    if by is None and share:
        raise MobileMoEError("--share needs --by", hint="one fit has nothing to share")
    if by is not None and out is not None:
        raise MobileMoEError(
            "--out takes one law and --by fits several", hint=f"fit one: --only {by.value}=VALUE"
        )
    if options.c_towards is None and options.c_strength != 1.0:
        raise MobileMoEError("--c-strength needs --c-towards", hint="say what c is pulled to")


def _selected(path: Path, only: list[str]) -> tuple[TrainingRun, ...]:
    from mobilemoe.plan.fit import read_runs, select_runs
    from mobilemoe.plan.fit.read import selector_value

    wanted = {name: selector_value(name, text) for name, text in map(_pair, only)}
    return select_runs(read_runs(path), **wanted)


def _fixed(fix: list[str]) -> dict[str, float]:
    fixed: dict[str, float] = {}
    for name, text in map(_pair, fix):
        try:
            fixed[name] = float(text)
        except ValueError as error:
            raise MobileMoEError(
                f"--fix {name}={text}: {text!r} is not a number", hint="for example --fix c=1.973"
            ) from error
    return fixed


def _pair(text: str) -> tuple[str, Any]:
    name, sign, value = text.partition("=")
    if not (sign and name and value):
        raise MobileMoEError(f"{text!r} is not NAME=VALUE", hint="for example c=1.973")
    return name.strip(), value.strip()
