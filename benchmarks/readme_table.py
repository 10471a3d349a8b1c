"""Print the README's measured tables from the raw results.

    python benchmarks/readme_table.py

`benchmarks/results/demo.json` is the report.json of one `make demo`, `opening.json` comes from
`benchmarks/opening.py`. `tests/test_readme.py` compares the README with what this prints, so the
prose cannot drift from the measurement.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any


def readme_table(report: Mapping[str, Any]) -> str:
    """Return the table in Markdown: sentence on the machine, speed rows, quality rows."""
    return "\n".join([_conditions(report), "", *_speed(report), "", *_quality(report)])


def opening_table(result: Mapping[str, Any]) -> str:
    """Return the table of opening a checkpoint: sentence on the machine, then the rows."""
    machine, rows = result["machine"], []
    for prompt, label in (("ids", "16 token ids"), ("text", "text, tokenizer of 128,256 entries")):
        median_of = result[prompt]["median"]
        memory = median_of["anonymous_mib"] * 1.048576
        rows.append(f"| {label} | {median_of['ready_ms']:.0f} ms | {memory:.0f} MB |")
    sentence = (
        f"{machine['cpu']}, {machine['cores']} cores, {result['date']}: {result['model']}, medians "
        f"of {len(result['ids']['rounds'])} fresh processes."
    )
    header = "| from opening to the first token | time | memory beyond mapped pages |"
    return "\n".join([sentence, "", header, "|---|---:|---:|", *rows])


def _conditions(report: Mapping[str, Any]) -> str:
    machine, speed = report["machine"], report["speed"]
    minutes = report["seconds"]["total"] / 60
    tokens = sum(stage["tokens"] for stage in report["stages"])
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {speed['threads']} threads, "
        f"{speed['instruction_set'].upper()} kernels, {report['started'][:10]}: "
        f"{tokens / 1e6:.2f} million tokens in four stages, {minutes:.1f} minutes in all after "
        f"installation. Medians of {speed['rounds']} interleaved rounds, a real prompt of "
        f"{speed['prompt_tokens']} tokens, {speed['new_tokens']} new ones."
    )


def _speed(report: Mapping[str, Any]) -> list[str]:
    moe, twin = report["speed"]["models"]
    rows = [
        ("INT4 weights", f"{_mb(moe)} MB", f"{_mb(twin)} MB"),
        ("parameters per token", _million(moe["active_params"]), _million(twin["active_params"])),
        (
            "time to first token",
            f"{_mid(moe, 'ttft_ms'):.1f} ms",
            f"{_mid(twin, 'ttft_ms'):.1f} ms",
        ),
        ("prefill", _rate(moe, "prefill_tok_s"), _rate(twin, "prefill_tok_s")),
        ("decode", _rate(moe, "decode_tok_s"), _rate(twin, "decode_tok_s")),
        ("peak RSS, Python included", _mib(moe), _mib(twin)),
    ]
    head = ["| | nano MobileMoE | dense twin of equal INT4 bytes |", "|---|---:|---:|"]
    return head + [f"| {title} | {ours} | {theirs} |" for title, ours, theirs in rows]


def _quality(report: Mapping[str, Any]) -> list[str]:
    rows = report["quantization"]["rows"]
    domains = ["code", "knowledge", "math", "instruct", "mean"]
    head = [
        f"| held-out perplexity | {' | '.join(domains)} |",
        "|---|" + "---:|" * len(domains),
    ]
    return head + [
        f"| {row['name']} | " + " | ".join(f"{row['perplexity'][d]:.2f}" for d in domains) + " |"
        for row in rows
    ]


def _mb(model: Mapping[str, Any]) -> str:
    return f"{model['weight_bytes_int4'] / 1e6:.2f}"


def _mib(model: Mapping[str, Any]) -> str:
    return f"{model['peak_rss_mib']:.1f} MiB"


def _million(value: int) -> str:
    return f"{value / 1e6:.2f}M"


def _mid(model: Mapping[str, Any], key: str) -> float:
    return median(model[key])


def _rate(model: Mapping[str, Any], key: str) -> str:
    return f"{_mid(model, key):,.0f} tok/s"


if __name__ == "__main__":
    results = Path(__file__).parent / "results"
    print(readme_table(json.loads((results / "demo.json").read_text())), end="\n\n")
    print(opening_table(json.loads((results / "opening.json").read_text())))
