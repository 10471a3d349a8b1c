"""The pages of results say what the raw results say."""

from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import fmean

import pytest
import sweep_tables
from ablations_table import table

from mobilemoe.sweep import load_sweep

ROOT = Path(__file__).parents[1]


def test_the_table_of_ablations_is_the_measured_one() -> None:
    result = json.loads((ROOT / "benchmarks/results/ablations.json").read_text())
    page = (ROOT / "docs/results/ablations.md").read_text(encoding="utf-8")
    assert table(result) in page
    seeds = {(row["variant"], row["seed"]) for row in result["rows"]}
    assert len(seeds) == len(result["rows"]) == 3 * len(result["variants"])


ROWS, FIT = sweep_tables.load()
PARTS = {
    "sizes": sweep_tables.sizes_table(ROWS),
    "losses": sweep_tables.loss_table(ROWS),
    "gains": sweep_tables.gains_table(ROWS),
    "coefficients": sweep_tables.fit_table(FIT),
    "errors": sweep_tables.error_table(FIT),
}


@pytest.mark.parametrize("name", PARTS)
def test_the_tables_of_the_sweep_are_the_measured_ones(name: str) -> None:
    page = (ROOT / "docs/results/scaling.md").read_text(encoding="utf-8")
    assert PARTS[name] in page


def test_the_kept_rows_are_those_of_the_sweep() -> None:
    """Every run that the sweep's file asks for has its row, trained as the file says."""
    sweep = load_sweep(ROOT / "recipes/sweep_nano.toml")
    kept = {row["key"]: row["fingerprint"] for row in ROWS}
    assert kept == {run.key: sweep.fingerprint(run) for run in sweep.runs()}
    assert len(kept) >= 60


def test_the_fit_is_of_the_kept_rows() -> None:
    """Its losses are those of the rows, and its law has the error that it states."""
    own = sweep_tables.family(ROWS)
    law = sweep_tables.law_of(FIT, ROWS)
    errors = [
        law.predict(
            active_params=row["active_params"],
            tokens=row["tokens"],
            num_experts=row["expert_equivalents"],
        ).loss
        - row["loss"]
        for row in own
    ]
    assert FIT["runs"] == len(own)
    assert math.sqrt(fmean(error**2 for error in errors)) == pytest.approx(FIT["rmse"], rel=1e-6)
