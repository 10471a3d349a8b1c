"""From a table of training runs to a scaling law with uncertainty."""

from __future__ import annotations

from mobilemoe.plan.fit.fit import fit_law
from mobilemoe.plan.fit.held_out import HeldOut
from mobilemoe.plan.fit.options import FitOptions
from mobilemoe.plan.fit.per import FitPer, fit_per
from mobilemoe.plan.fit.read import read_runs
from mobilemoe.plan.fit.result import Coefficient, Interval, LawFit
from mobilemoe.plan.fit.runs import TrainingRun, select_runs

__all__ = [
    "Coefficient",
    "FitOptions",
    "FitPer",
    "HeldOut",
    "Interval",
    "LawFit",
    "TrainingRun",
    "fit_law",
    "fit_per",
    "read_runs",
    "select_runs",
]
