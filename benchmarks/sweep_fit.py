"""Fit the law to a sweep, and predict runs that the fit has not seen.

    python benchmarks/sweep_fit.py benchmarks/results/sweep_nano.jsonl \
        --out benchmarks/results/sweep_fit.json

Fitted are the runs with granularity 8 and a shared expert, E from 1 to 32: nine coefficients with
bootstrap intervals, in millions of parameters and of tokens. Refits leave out a fifth of the
configurations in turn, then the largest size, the most tokens, and both; what they predict for
the runs left out stands beside what was measured. Ends with one JSON line.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mobilemoe.atomic import atomic_write
from mobilemoe.plan.fit import FitOptions, LawFit, TrainingRun, fit_law, read_runs, select_runs
from mobilemoe.plan.law import MoELaw
from mobilemoe.profile.machine import this_machine, versions

MILLION = 1e6
FAMILY = {"granularity": 8, "shared_expert": True}
FOLDS = 5
LEFT_OUT: dict[str, Callable[[TrainingRun], bool]] = {
    "largest size": lambda run: run.active_params > 0.7e6,
    "most tokens": lambda run: run.tokens > 0.7e6,
    "both": lambda run: run.active_params > 0.7e6 or run.tokens > 0.7e6,
}


def options(bootstrap: int, leave_out: bool = True) -> FitOptions:
    """Return how all fits are made."""
    return FitOptions(
        bootstrap=bootstrap, leave_out=leave_out, unit_active=MILLION, unit_tokens=MILLION
    )


def splits(runs: Sequence[TrainingRun]) -> Iterator[tuple[str, set[int]]]:
    """Yield what is left out and the indices of its runs; seeds of a configuration go together."""
    order = list(dict.fromkeys(run.configuration for run in runs))
    for fold in range(FOLDS):
        chosen = set(order[fold::FOLDS])
        members = {i for i, run in enumerate(runs) if run.configuration in chosen}
        yield "a fifth in turn", members
    for name, is_left_out in LEFT_OUT.items():
        yield name, {i for i, run in enumerate(runs) if is_left_out(run)}


def predictions(runs: Sequence[TrainingRun]) -> list[dict[str, Any]]:
    """Refit without some runs and predict them."""
    found = []
    for name, members in splits(runs):
        rest = [run for index, run in enumerate(runs) if index not in members]
        law = fit_law(rest, options=options(0, leave_out=False)).law
        for run in (runs[index] for index in sorted(members)):
            predicted = law.predict(
                active_params=run.active_params,
                tokens=run.tokens,
                num_experts=run.expert_equivalents,
            )
            found.append({"left_out": name, **asdict(run), "predicted": predicted.loss})
    return found


def document(runs: Sequence[TrainingRun], fit: LawFit[MoELaw], seconds: float) -> dict[str, Any]:
    """Return everything that is kept."""
    law = fit.law
    means = {str(experts): law.mean_loss(experts) for experts in law.expert_grid}
    return {
        "benchmark": "sweep_fit",
        "machine": asdict(this_machine()),
        "versions": versions(("mobilemoe", "scipy", "numpy")),
        "runs": len(runs),
        "units": {"active_params": MILLION, "tokens": MILLION},
        "confidence": fit.confidence,
        "coefficients": [asdict(coefficient) for coefficient in fit.coefficients],
        "rmse": law.rmse,
        "seed_noise": fit.seed_noise,
        "mean_loss": means,
        "best_num_experts": law.best_num_experts(),
        "held_out": [asdict(held) for held in fit.held_out],
        "warnings": list(fit.warnings),
        "predictions": predictions(runs),
        "seconds": round(seconds, 1),
    }


def main() -> None:
    """Fit, predict, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--bootstrap", type=int, default=200)
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    runs = select_runs(read_runs(arguments.rows), **FAMILY)
    started = time.perf_counter()
    fit = fit_law(runs, options=options(arguments.bootstrap), source=arguments.rows.name)
    result = document(runs, fit, time.perf_counter() - started)
    if arguments.out is not None:
        atomic_write(arguments.out, json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
