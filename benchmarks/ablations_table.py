"""Print the table of docs/results/ablations.md from the raw rows, and draw its picture.

    python benchmarks/ablations_table.py [--plot docs/results/ablations.png]

`tests/test_readme.py` compares the page with what this prints.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

RESULT = Path(__file__).parent / "results/ablations.json"
DOMAINS = ("code", "knowledge", "math")
Rows = Sequence[Mapping[str, Any]]


def by_variant(result: Mapping[str, Any]) -> dict[str, Rows]:
    """Return the rows of each variant, in the order in which the script names them."""
    found = {
        name: [r for r in result["rows"] if r["variant"] == name] for name in result["variants"]
    }
    return {name: rows for name, rows in found.items() if rows}


def table(result: Mapping[str, Any]) -> str:
    """Return the table in Markdown: means over seeds; differences to the base seed by seed."""
    groups = by_variant(result)
    base = {row["seed"]: row["heldout_mean"] for row in groups["base"]}
    lines = [
        "| | held-out loss | against base | code | knowledge | math | fullest expert | dropped "
        "| router entropy |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, rows in groups.items():
        losses = [row["heldout_mean"] for row in rows]
        gaps = [row["heldout_mean"] - base[row["seed"]] for row in rows]
        cells = [
            f"{mean(losses):.3f}",
            "" if name == "base" else f"{mean(gaps):+.3f} ± {stdev(gaps):.3f}",
            *(f"{mean(row['heldout'][domain] for row in rows):.3f}" for domain in DOMAINS),
            f"{mean(row['worst_load'] for row in rows):.1f}x",
            f"{mean(row['dropped_share'] for row in rows):.1%}",
            f"{mean(row['router_entropy'] for row in rows):.2f}",
        ]
        lines.append(f"| {name}: {result['variants'][name]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def smoothed(values: list[float]) -> list[float]:
    """Return running means: the mixture's domains take turns and differ by nats."""
    reach = 7
    spans = [values[max(0, i - reach) : i + reach + 1] for i in range(len(values))]
    return [mean(span) for span in spans]


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Draw training loss over tokens and the held-out loss of every seed."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for place, (name, rows) in enumerate(by_variant(result).items()):
        curves = [row["curve"] for row in rows]
        averaged = smoothed([mean(values) for values in zip(*curves, strict=True)])
        tokens = [rows[0]["tokens"] * i / len(averaged) / 1e3 for i in range(len(averaged))]
        left.plot(tokens, averaged, label=name, linewidth=1.2)
        losses = [row["heldout_mean"] for row in rows]
        right.plot(losses, [place] * len(losses), "o", alpha=0.6)
        right.plot(mean(losses), place, "|", markersize=22, color="black")
    left.set(
        xlabel="thousand tokens",
        ylabel="training loss, nats",
        title="mean over seeds, running mean",
    )
    left.legend(frameon=False)
    left.set_ylim(top=7)
    right.set(xlabel="held-out loss, nats (each seed, and the mean)")
    right.set_yticks(range(len(by_variant(result))), list(by_variant(result)))
    right.invert_yaxis()
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plot", type=Path, default=None)
    arguments = parser.parse_args()
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    print(table(result))
    if arguments.plot is not None:
        plot(result, arguments.plot)


if __name__ == "__main__":
    main()
