"""`mobilemoe plan fit`: tables in, laws out; what it prints and what it refuses."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from fit_tables import planted
from mobilemoe.plan import published_law
from mobilemoe.plan.fit import FitOptions, fit_law, read_runs, select_runs
from mobilemoe.plan.law import load_law

from .conftest import Run

LAW = published_law()
QUICK = ("--starts", "8", "--bootstrap", "10")
OPTIONS = FitOptions(starts=8, bootstrap=10)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a table with a sweep over E and one over the shared expert at E = 8."""
    runs = planted(noise=0.001, experts=(1, 8, 32)) + planted(
        replace(LAW, a=0.3), noise=0.001, seed=1, experts=(8,), shared_expert=False
    )
    path = tmp_path_factory.mktemp("runs") / "sweep.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(asdict(runs[0])))
        writer.writeheader()
        writer.writerows(asdict(run) for run in runs)
    return path


def test_a_joint_fit_as_json_and_as_a_file(run: Run, sweep: Path, tmp_path: Path) -> None:
    out = tmp_path / "law.json"
    done = run("plan", "fit", sweep, "--only", "shared_expert=yes", *QUICK, "--json", "--out", out)
    assert (done.returncode, done.stderr) == (0, "")
    document: dict[str, Any] = json.loads(done.stdout)
    runs = select_runs(read_runs(sweep), shared_expert=True)
    fit = fit_law(runs, options=OPTIONS, source="fit of sweep.csv")
    assert load_law(out) == fit.law
    assert document["law"] == json.loads(out.read_text())
    assert document["runs"] == 36
    for name, interval in fit.intervals.items():
        shown = document["coefficients"][name]
        assert (shown["low"], shown["high"], shown["fixed"]) == (interval.low, interval.high, False)
        assert shown["value"] == getattr(fit.law, name)
    assert len(document["held_out"]) == len(fit.held_out) > 0
    assert document["warnings"] == list(fit.warnings)


def test_a_dense_fit_as_text(run: Run, sweep: Path) -> None:
    arguments = ("--form", "dense", "--only", "expert_equivalents=1", "--fix", "c=1.973")
    done = run("plan", "fit", sweep, *arguments, *QUICK, COLUMNS="120")
    assert (done.returncode, done.stderr) == (0, "")
    runs = select_runs(read_runs(sweep), expert_equivalents=1)
    fit = fit_law(runs, form="dense", fixed={"c": 1.973}, options=OPTIONS)
    assert "gamma" not in done.stdout
    for coefficient in fit.coefficients:
        assert f"{coefficient.value:.4f}" in done.stdout
    assert "fixed" in done.stdout and "90% interval" in done.stdout
    assert f"12 runs, error of the fit {fit.law.rmse:.4f} nats" in done.stdout
    assert "300 million active params" in done.stdout
    for warning in fit.warnings:
        assert f"- {warning}" in done.stdout


def test_fits_per_shared_expert_with_the_ratio(run: Run, sweep: Path) -> None:
    arguments = ("--by", "shared_expert", "--share", "alpha,b,beta,c", "--c-towards", "1.973")
    sparse = ("--only", "expert_equivalents=8")
    text = run("plan", "fit", sweep, *sparse, *arguments, *QUICK, COLUMNS="120")
    assert (text.returncode, text.stderr) == (0, "")
    assert "shared_expert no" in text.stdout and "shared_expert yes" in text.stdout
    assert "What differs by shared_expert" in text.stdout
    done = run("plan", "fit", sweep, *sparse, *arguments, *QUICK, "--json")
    document = json.loads(done.stdout)
    without, with_shared = document["fits"]
    assert (without["shared_expert"], with_shared["shared_expert"]) == (0, 1)
    assert without["coefficients"]["c"] == with_shared["coefficients"]["c"]
    ratio = with_shared["coefficients"]["a"]["value"] / without["coefficients"]["a"]["value"]
    assert f"{ratio:.4f}" in text.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "the runs mix shared_expert False, True"),
        (("--only", "shared_expert=yes", "--form", "dense"), "form dense"),
        (("--only", "depth=3"), "cannot select by depth"),
        (("--only", "granularity"), "'granularity' is not NAME=VALUE"),
        (("--fix", "c=x"), "'x' is not a number"),
        (("--share", "c"), "--share needs --by"),
        (("--by", "shared_expert", "--out", "law.json"), "--out takes one law"),
        (("--c-strength", "2"), "--c-strength needs --c-towards"),
        (("--bootstrap", "3"), "bootstrap is 3"),
    ],
)
def test_what_cannot_be_fitted_is_refused(
    arguments: tuple[str, ...], message: str, run: Run, sweep: Path
) -> None:
    done = run("plan", "fit", sweep, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr and "hint: " in done.stderr
