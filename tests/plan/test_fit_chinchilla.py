"""The dense fit against the package `chinchilla` 0.2.0, on the same runs and objective.

With the plain objective the package ends before the minimum (see the script); with the scaled
one, which has the same minimum, both must meet.

Its results are stored with the runs in benchmarks/results/chinchilla_check.json, because it
brings plotting and table libraries along. To make them anew, in an environment that has it:
`python benchmarks/chinchilla_check.py --out benchmarks/results/chinchilla_check.json`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import chinchilla_check
import numpy as np
import pytest

from mobilemoe.plan.fit import FitOptions, TrainingRun, fit_law

STORED = Path(__file__).parents[2] / "benchmarks" / "results" / "chinchilla_check.json"
DOCUMENT: dict[str, Any] = json.loads(STORED.read_text(encoding="utf-8"))
TABLES = {table["name"]: table for table in DOCUMENT["tables"]}


@pytest.fixture(params=sorted(TABLES), scope="module")
def table(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return one of the stored tables with the package's coefficients."""
    return TABLES[request.param]


@pytest.fixture(scope="module")
def ours(table: dict[str, Any]) -> dict[str, float]:
    """Return the coefficients of this project's fit of the table."""
    runs = [TrainingRun(expert_equivalents=1, **row) for row in table["runs"]]
    options = FitOptions(huber=DOCUMENT["huber"], bootstrap=0, leave_out=False)
    fit = fit_law(runs, form="dense", options=options)
    found = {coefficient.name: coefficient.value for coefficient in fit.coefficients}
    assert fit.objective == pytest.approx(chinchilla_check.objective(table["runs"], found))
    return found


@pytest.mark.parametrize("kind", ["plain", "scaled"])
def test_our_minimum_is_at_least_as_low(
    kind: str, table: dict[str, Any], ours: dict[str, float]
) -> None:
    theirs = chinchilla_check.objective(table["runs"], table[kind]["coefficients"])
    assert theirs == pytest.approx(table[kind]["objective"])
    assert chinchilla_check.objective(table["runs"], ours) <= theirs * (1 + 1e-6)


def test_both_meet_in_the_same_minimum(table: dict[str, Any], ours: dict[str, float]) -> None:
    theirs = table["scaled"]["objective"]
    assert chinchilla_check.objective(table["runs"], ours) == pytest.approx(theirs, rel=1e-4)


def test_both_find_the_same_coefficients(table: dict[str, Any], ours: dict[str, float]) -> None:
    for name, value in ours.items():
        theirs = table["scaled"]["coefficients"][name]
        assert value == pytest.approx(theirs, rel=5e-3), name


def test_both_predict_the_same_losses(table: dict[str, Any], ours: dict[str, float]) -> None:
    def losses(k: dict[str, float]) -> np.ndarray[Any, Any]:
        size = np.array([row["active_params"] / 1e9 for row in table["runs"]])
        tokens = np.array([row["tokens"] / 1e9 for row in table["runs"]])
        result: np.ndarray[Any, Any] = k["a"] * size ** k["alpha"] + k["b"] * tokens ** k["beta"]
        return result + k["c"]

    worst = np.abs(losses(ours) - losses(table["scaled"]["coefficients"])).max()
    assert worst < DOCUMENT["noise"] / 10


def test_the_stored_runs_are_the_script_s() -> None:
    assert chinchilla_check.made_up_runs(1, {}) == TABLES["gaussian"]["runs"]
    outliers = chinchilla_check.made_up_runs(2, chinchilla_check.OUTLIERS)
    assert outliers == TABLES["outliers"]["runs"]
