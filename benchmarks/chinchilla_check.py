"""The dense fit of another project, on the same runs: the package `chinchilla`.

    python benchmarks/chinchilla_check.py --out benchmarks/results/chinchilla_check.json

Needs `pip install chinchilla` (0.2.0) in any environment; mobilemoe is not needed there. The runs
are made up: a 5 x 6 grid of sizes and tokens, the dense slice (E = 1) of the law of
arXiv 2605.27358 and seeded noise in ln(loss), once Gaussian and once with two outliers. The
package fits L = E + A / N^alpha + B / D^beta with the objective of arXiv 2203.15556 (Huber loss
of ln(loss), delta 1e-3) by BFGS from a grid of starts, on raw counts of parameters and tokens.
Its BFGS ends where the gradient is below 1e-5, and this objective is as small as that everywhere
near its minimum: with the plain objective it ends early. It is therefore also run on the objective
times SCALE, which has the same minimum. tests/plan/test_fit_chinchilla.py fits the stored runs
with this project and compares.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

BILLION = 1e9
DENSE_SLICE = {"a": 0.2388, "alpha": -0.2833, "b": 0.6019, "beta": -0.3210, "c": 1.9730}
SIZES = (0.1e9, 0.2e9, 0.3e9, 0.5e9, 0.9e9)
TOKENS = (10e9, 25e9, 50e9, 100e9, 200e9, 500e9)
HUBER = 1e-3
SCALE = 1e6
NOISE = 0.002
OUTLIERS = {7: 1.03, 20: 1.05}  # by index of the run: factor of its loss
GRID = {
    "e": np.log([1.0, 2.0]),
    "a": np.array([3.0, 7.0]),
    "b": np.array([3.0, 7.0]),
    "alpha": np.array([0.15, 0.4]),
    "beta": np.array([0.15, 0.4]),
}


def made_up_runs(seed: int, outliers: dict[int, float]) -> list[dict[str, float]]:
    """Return the rows of one table: N, D and the loss."""
    rng = np.random.default_rng(seed)
    rows = []
    for index, (size, tokens) in enumerate((n, d) for n in SIZES for d in TOKENS):
        k = DENSE_SLICE
        loss = k["a"] * (size / BILLION) ** k["alpha"] + k["b"] * (tokens / BILLION) ** k["beta"]
        loss = (loss + k["c"]) * float(np.exp(rng.normal(0, NOISE))) * outliers.get(index, 1.0)
        rows.append({"active_params": size, "tokens": tokens, "loss": loss})
    return rows


def log_huber(y_true: Any, y_pred: Any) -> Any:
    """Chinchilla's objective of one run."""
    error = np.abs(np.log(y_true) - np.log(y_pred))
    return np.where(error < HUBER, error**2 / 2, HUBER * (error - HUBER / 2))


def fit(rows: list[dict[str, float]], scale: float) -> dict[str, float]:
    """Return the package's coefficients, in billions and with this project's signs."""
    from chinchilla import Chinchilla

    with tempfile.TemporaryDirectory() as folder:
        package = Chinchilla(
            folder, param_grid=GRID, loss_fn=lambda y, p: scale * log_huber(y, p), log_level=50
        )
        for row in rows:
            package.append(N=row["active_params"], D=row["tokens"], loss=row["loss"])
        start = time.perf_counter()
        package.fit()
        seconds = time.perf_counter() - start
    alpha, beta = float(package.alpha), float(package.beta)
    return {
        "a": float(package.A) * BILLION**-alpha,
        "alpha": -alpha,
        "b": float(package.B) * BILLION**-beta,
        "beta": -beta,
        "c": float(package.E),
        "seconds": seconds,
    }


def objective(rows: list[dict[str, float]], k: dict[str, float]) -> float:
    """Return the objective that both projects minimise, of the coefficients `k`."""
    size = np.array([row["active_params"] for row in rows]) / BILLION
    tokens = np.array([row["tokens"] for row in rows]) / BILLION
    predicted = k["a"] * size ** k["alpha"] + k["b"] * tokens ** k["beta"] + k["c"]
    return float(log_huber(np.array([row["loss"] for row in rows]), predicted).sum())


def main() -> None:
    """Fit both tables and write them with the coefficients."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=None)
    out: Path | None = parser.parse_args().out
    tables = []
    for name, seed, outliers in (("gaussian", 1, {}), ("outliers", 2, OUTLIERS)):
        rows = made_up_runs(seed, outliers)
        table: dict[str, Any] = {"name": name}
        for kind, scale in (("plain", 1.0), ("scaled", SCALE)):
            found = fit(rows, scale)
            table[kind] = {"coefficients": found, "objective": objective(rows, found)}
        print(json.dumps(table))
        tables.append({**table, "runs": rows})
    document = {
        "package": f"chinchilla {version('chinchilla')}",
        "planted": DENSE_SLICE,
        "noise": NOISE,
        "huber": HUBER,
        "scale": SCALE,
        "starts": int(np.prod([len(values) for values in GRID.values()])),
        "tables": tables,
    }
    if out is not None:
        out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
