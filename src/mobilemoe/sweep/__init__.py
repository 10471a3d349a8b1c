"""The ablation harness: grids of small models, trained under equal conditions, one row each."""

from __future__ import annotations

from mobilemoe.sweep.grid import Grid, RunSpec, Size, Sweep, SweepTraining
from mobilemoe.sweep.harness import Progress, RunFailed, RunFinished, carry_out
from mobilemoe.sweep.load import load_sweep, parse_sweep
from mobilemoe.sweep.rows import Rows, read_rows

__all__ = [
    "Grid",
    "Progress",
    "Rows",
    "RunFailed",
    "RunFinished",
    "RunSpec",
    "Size",
    "Sweep",
    "SweepTraining",
    "carry_out",
    "load_sweep",
    "parse_sweep",
    "read_rows",
]
