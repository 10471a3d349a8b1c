"""The document of `mobilemoe bench` as a Markdown table or as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

from mobilemoe.cli.units import amount

Document = dict[str, Any]
Row = dict[str, Any]

COLUMNS = (
    "model",
    "threads",
    "test",
    "tok/s (lowest to highest)",
    "of ceiling",
    "TTFT, TPOT: ms p50 / p95 / p99",
    "MB/token",
    "experts/token",
)
CEILING_NAMES = {
    "read_gb_s": "read bandwidth",
    "int8_gmac_s": "int8 peak",
    "fp32_gmac_s": "fp32 peak",
}


def parts(document: Document) -> Iterator[Document]:
    """Yield the document's model and, if there is one, what it was held against."""
    yield document
    if document["versus"] is not None:
        yield document["versus"]


def row_name(row: Row) -> str:
    """Return the name that llama-bench gives a row: pp512, tg128 @ d4096."""
    name = f"{'pp' if row['kind'] == 'prefill' else 'tg'}{row['tokens']}"
    return f"{name} @ d{row['depth']}" if row["depth"] else name


def markdown(document: Document) -> str:
    """Return the rows as a table, and beneath it memory, ceilings, ratios and the machine."""
    table: list[tuple[str, ...]] = [COLUMNS]
    for part in parts(document):
        table += [(part["model"]["name"], *_cells(row)) for row in part["rows"]]
    return "\n".join([*_aligned(table), "", *_notes(document)]) + "\n"


def _cells(row: Row) -> tuple[str, ...]:
    share = f"{row['share_of_ceiling']:.1%} {CEILING_NAMES[row['ceiling']]}"
    unique = row["unique_experts_per_token"]
    return (
        str(row["threads"]),
        row_name(row),
        f"{row['tok_s']:.2f} ({min(row['tok_s_all']):.2f} to {max(row['tok_s_all']):.2f})",
        share,
        " / ".join(f"{value:.2f}" for value in (row["ttft_ms"] or row["tpot_ms"]).values()),
        f"{row['bytes_per_token'] / 1e6:.2f}",
        "" if unique is None else f"{unique:.2f}",
    )


def _aligned(table: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for index, row in enumerate(table):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield f"| {' | '.join(cells)} |"
        if index == 0:
            yield f"| {' | '.join('-' * width for width in widths)} |"


def _notes(document: Document) -> Iterator[str]:
    for part in parts(document):
        model = part["model"]
        details = f"{amount(model['weight_bytes'], 'B')}, {model['instruction_set']}"
        yield f"{model['name']}: {model['weight_format']}, {details}; {model['prompts']}"
        if part["peak_rss"] is not None:
            peak = part["peak_rss"]
            yield (
                f"  peak memory at {document['context']} tokens: {peak['real_mib']:.0f} MiB with "
                f"real prompts, {peak['repeated_mib']:.0f} MiB with one token repeated"
            )
        settings = {row_name(row): row["settings"] for row in part["rows"] if row["settings"]}
        for name, setting in settings.items():
            yield f"  {name}: {setting}"
    yield from _ratios(document)
    for one in document["ceilings"]["by_threads"]:
        yield (
            f"ceilings, {one['threads']} threads: read {one['read_gb_s']:.1f} GB/s, int8 "
            f"{one['int8_gmac_s']:.0f} GMAC/s ({one['int8_instructions']}), fp32 "
            f"{one['fp32_gmac_s']:.0f} GMAC/s ({one['fp32_instructions']})"
        )
    machine = document["machine"]
    yield (
        f"machine: {machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']:.1f} GB, "
        f"{machine['os']}; load {machine['load_average']:.2f} at the start, {machine['date']}"
    )


def _ratios(document: Document) -> Iterator[str]:
    if document["versus"] is None:
        return
    names = document["model"]["name"], document["versus"]["model"]["name"]
    for ratio in document["versus"]["ratios"]:
        yield (
            f"{names[0]} over {names[1]}, {row_name(ratio)}, {ratio['threads']} threads: "
            f"{ratio['ratio']:.2f}x"
        )


def csv_table(document: Document) -> str:
    """Return one line per row with every number of it, and what describes the model."""
    lines = [_flat(part["model"], row) for part in parts(document) for row in part["rows"]]
    out = io.StringIO()
    writer = csv.DictWriter(out, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


def _flat(model: Document, row: Row) -> Row:
    flat = {f"model_{key}": model[key] for key in ("name", "engine", "fingerprint")}
    for key, value in row.items():
        if key in ("ttft_ms", "tpot_ms"):
            percents = ("p50", "p95") if key == "ttft_ms" else ("p50", "p95", "p99")
            flat |= {f"{key}_{percent}": (value or {}).get(percent) for percent in percents}
        else:
            flat[key] = " ".join(map(str, value)) if isinstance(value, list | tuple) else value
    return flat
