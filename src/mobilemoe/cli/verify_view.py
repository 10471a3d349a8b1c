"""The receipt of `mobilemoe verify` as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobilemoe.cli.output import print_table

if TYPE_CHECKING:
    from mobilemoe.verify import Check, EndToEnd, Pair, Parity, Receipt

MARKS = {"pass": "ok", "fail": "FAIL", "skip": "skip", "info": "info"}


def print_receipt(receipt: Receipt) -> None:
    """Print every section, one line a check, and the verdict last."""
    for section in receipt.sections:
        if receipt.parity is not None and section is receipt.sections[-1]:
            print_parity(receipt.parity, section.checks)
            continue
        rows = [(MARKS[check.status], check.name, finding(check)) for check in section.checks]
        print_table(section.name, ("", "check", "finding"), rows)
    print(verdict(receipt))


def finding(check: Check) -> str:
    """Return what a check found; under it what to do, if it failed and that is known."""
    hint = check.data.get("hint") if check.status == "fail" else None
    return f"{check.detail}\nhint: {hint}" if hint else check.detail


def verdict(receipt: Receipt) -> str:
    """Return the last line."""
    if receipt.first_failure is not None:
        return f"FAILED: {receipt.first_failure}"
    statuses = [check.status for section in receipt.sections for check in section.checks]
    return f"PASSED: {statuses.count('pass')} checks, {statuses.count('skip')} skipped"


def print_parity(parity: Parity, checks: tuple[Check, ...]) -> None:
    """Print the neighbours: each layer from one input, then whole forward passes."""
    header = ("", "neighbours", "nearest to its bound", "measured", "bound", "x expected")
    rows = [_local_row(pair, check) for pair, check in zip(parity.pairs, checks, strict=True)]
    engine = f", engine on {parity.kernels}" if parity.kernels else ""
    print_table(f"Parity of each tensor, same input: {parity.prompt}{engine}", header, rows)
    for name, reason in parity.columns.items():
        if reason is not None:
            print(f"  {name}: {reason}")
    whole = [
        _whole_row(pair, pair.end_to_end) for pair in parity.pairs if pair.end_to_end is not None
    ]
    if whole:
        names = ("neighbours", "sets differ", "most in", "cosine", "lowest", "argmax", "error")
        print_table("Parity of whole forward passes", names, whole)


def _local_row(pair: Pair, check: Check) -> tuple[str, ...]:
    shown = pair.first_failure or pair.worst
    if shown is None:
        return (MARKS[check.status], pair.name, "not compared", "", "", "")
    numbers = (f"{shown.measured:.2e}", f"{shown.allowed:.2e}", _times(shown.ratio))
    return (MARKS[check.status], pair.name, shown.where, *numbers)


def _times(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 100 else f"{ratio:.0e}"


def _whole_row(pair: Pair, whole: EndToEnd) -> tuple[str, ...]:
    sets, most = "dense", ""
    if whole.sets_differ is not None:
        sets = f"{whole.sets_differ:.1%}"
    if whole.worst_layer_sets_differ:
        most = f"layer {whole.worst_layer}: {whole.worst_layer_sets_differ:.1%}"
    return (
        pair.name,
        sets,
        most,
        f"{whole.median_cosine:.6f}",
        f"{whole.min_cosine:.6f}",
        f"{whole.argmax_agreement:.1%}",
        f"{whole.max_relative_error:.1e}",
    )
