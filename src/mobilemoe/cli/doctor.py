"""`mobilemoe doctor`: is this machine ready, and how is each answer known."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from mobilemoe.cli.guard import FAILED
from mobilemoe.cli.output import JsonOption, print_json
from mobilemoe.cli.units import amount

if TYPE_CHECKING:
    from rich.padding import Padding

    from mobilemoe.engine.selftest import Check
    from mobilemoe.profile.doctor import Report
    from mobilemoe.profile.findings import Line, Problem

DOCTOR_EXAMPLES = "\b\nExamples:\n  mobilemoe doctor\n  mobilemoe doctor --json"
TITLES = {
    "processor": "Processor",
    "self_test": "Self-test of the kernels",
    "threads": "Threads",
    "memory": "Memory",
    "fits": "What fits (INT4, by context in tokens)",
    "disk": "Disk",
    "hub": "Hub and licences",
    "software": "Software",
}
NAME_WIDTH = 19
TAG_WIDTH = 8
EXACT_BELOW = 10_000  # bytes; a page size is a power of two
LEGEND = (
    "measured: read or tried out now. derived: computed from that. policy: a choice or a rule. "
    "unknown: the system does not say."
)


def doctor(as_json: JsonOption = False) -> None:
    """Check this machine: kernels, threads, memory, what fits, disk, hub and versions.

    Exit status 1 means that the engine is missing or computes wrongly.
    """
    from mobilemoe.profile.doctor import examine

    report = examine()
    if as_json:
        print_json(document(report))
    else:
        _print_report(report)
    if not report.ok:
        raise typer.Exit(FAILED)


def document(report: Report) -> dict[str, Any]:
    """Return the JSON document: topics by name, each line by its name."""
    topics: dict[str, dict[str, Any]] = {}
    for line in report.lines:
        values = asdict(line)
        topics.setdefault(values.pop("topic"), {})[values.pop("name")] = values
    return {
        "ok": report.ok,
        "topics": topics,
        "self_test": [_check(check) for check in report.checks],
        "fits": [asdict(fit) for fit in report.fits],
        "problems": [asdict(problem) for problem in report.problems],
    }


def _check(check: Check) -> dict[str, Any]:
    finite = check.worst < float("inf")  # JSON has no infinity
    return {
        "kernel": check.kernel,
        "function": check.function,
        "passed": check.passed,
        "worst_share_of_tolerance": check.worst if finite else None,
        "where": check.where,
    }


def _print_report(report: Report) -> None:
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    for topic, title in TITLES.items():
        lines = [line for line in report.lines if line.topic == topic]
        if lines:
            console.print(title, style="bold")
            console.print(_table(lines))
    console.print(LEGEND)
    _print_problems(report.problems)


def _table(lines: list[Line]) -> Padding:
    """Return name, tag and finding of each line; the tables of all topics line up."""
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(width=NAME_WIDTH)
    table.add_column(width=TAG_WIDTH)
    table.add_column(overflow="fold")
    for line in lines:
        note = f" ({line.note})" if line.note else ""
        finding = Text.assemble((_value(line), "bold"), (note, "dim"))
        table.add_row(line.name.replace("_", " "), line.tag, finding)
    return Padding(table, (0, 0, 1, 2))


def _value(line: Line) -> str:
    if line.value is None:
        return "unknown"
    if line.unit != "B" or not isinstance(line.value, int):
        return f"{line.value} {line.unit}".rstrip()
    return amount(line.value, "B") if line.value >= EXACT_BELOW else f"{line.value:,} B"


def _print_problems(problems: tuple[Problem, ...]) -> None:
    print("\nproblems: none" if not problems else "\nproblems:")
    for problem in problems:
        print(f"{problem.severity}: {problem.what}")
        print(f"hint: {problem.hint}")
