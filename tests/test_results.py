"""The pages of results say what the raw results say."""

from __future__ import annotations

import json
from pathlib import Path

from ablations_table import table

ROOT = Path(__file__).parents[1]


def test_the_table_of_ablations_is_the_measured_one() -> None:
    result = json.loads((ROOT / "benchmarks/results/ablations.json").read_text())
    page = (ROOT / "docs/results/ablations.md").read_text(encoding="utf-8")
    assert table(result) in page
    seeds = {(row["variant"], row["seed"]) for row in result["rows"]}
    assert len(seeds) == len(result["rows"]) == 3 * len(result["variants"])
