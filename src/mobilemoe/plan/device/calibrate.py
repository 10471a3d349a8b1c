"""From documents of `mobilemoe bench` to a profile of the machine that they were measured on.

Plain rates come from the documents' own ceilings, the medians over all runs; cost factors from
a fit to their rows. A thread count, a context or a shape that was left out is predicted from the
others: of a thread count only the plain rates are then known.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from mobilemoe.errors import MobileMoEError
from mobilemoe.plan.device.constant import Constant
from mobilemoe.plan.device.fit import Prediction, fit_costs, left_out
from mobilemoe.plan.device.measurement import Measurement, measurements_of, median_of_runs
from mobilemoe.plan.device.profile import DeviceProfile
from mobilemoe.plan.device.terms import ATTENTION_TERMS, WEIGHT_TERMS, Rates

# Of the native engine: tokens of a prompt at a time, int8 terms of the projections' input.
ENGINE_CHUNK, ENGINE_PASSES = 512, 2
GROUPS: Mapping[str, Callable[[Measurement], Hashable]] = {
    "shape": lambda row: row.config,
    "context": lambda row: row.depth,
    "threads": lambda row: row.threads,
    "row": lambda row: row,
}
Document = Mapping[str, Any]


@dataclass(frozen=True)
class Assumptions:
    """What a bench does not measure: bytes of the last cache, watts, $/kWh, $/h."""

    cache_bytes: float = 32e6
    watts: float = 15.0
    electricity: float = 0.17
    per_hour: float = 0.0
    source: str = "not measured; a default"


@dataclass(frozen=True)
class Calibration:
    """A profile, the rows behind it, and what the model says of rows that it has not seen.

    `left_out` is keyed by what was left out in turn: shape, context, threads, row. One of which
    the rows have a single value is missing.
    """

    profile: DeviceProfile
    rows: tuple[Measurement, ...]
    left_out: Mapping[str, tuple[Prediction, ...]]


def calibrate(
    documents: Sequence[Document], name: str, stated: Assumptions | None = None, title: str = ""
) -> Calibration:
    """Return the profile `name` of the one machine that `documents` were measured on.

    Raises:
        MobileMoEError: if a document is not one of `mobilemoe bench`, they are of different
            machines, or there are too few rows.
    """
    stated = stated or Assumptions()
    rows = median_of_runs([row for document in documents for row in measurements_of(document)])
    machine = _machine(documents)
    read, multiply = (_ceilings(documents, key) for key in ("read_gb_s", "int8_gmac_s"))
    rates = {
        threads: Rates(
            read[threads], multiply[threads], stated.cache_bytes, ENGINE_CHUNK, ENGINE_PASSES
        )
        for threads in read
    }

    def rates_of(row: Measurement) -> Rates:
        return rates[row.threads]

    source = f"fitted to {len(rows)} rows of `mobilemoe bench` on {machine}"
    costs = {
        path: Constant(_rounded(factor), _unit(path), "measured", source)
        for path, factor in fit_costs(rows, rates_of).items()
    }
    profile = DeviceProfile(
        name=name,
        title=title or machine,
        threads=max(read),
        **_stated(documents, stated),
        read_bytes_s=_measured(read, "B/s", "read loop"),
        mac_s=_measured(multiply, "MAC/s", "int8 product loop"),
        weights=_by_format("weights", costs),
        attention=_by_format("attention", costs),
    )
    predictions = {
        what: left_out(rows, rates_of, group)
        for what, group in GROUPS.items()
        if len(set(map(group, rows))) > 1
    }
    return Calibration(profile, rows, predictions)


def _machine(documents: Sequence[Document]) -> str:
    """Return the one machine of the documents in words."""
    try:
        names = {
            f"{one['machine']['cpu']}, {one['machine']['cores']} cores, "
            f"{one['machine']['instruction_set']}"
            for one in documents
        }
    except (KeyError, TypeError) as error:
        raise MobileMoEError(
            f"a bench document does not describe its machine: {error!r}"
        ) from error
    if len(names) != 1:
        raise MobileMoEError(
            f"the documents are of {len(names)} machines: {'; '.join(sorted(names))}",
            hint="calibrate one profile per machine",
        )
    return names.pop()


def _ceilings(documents: Sequence[Document], key: str) -> dict[int, float]:
    """Return the median rate of each thread count, in units per second."""
    found: dict[int, list[float]] = {}
    for document in documents:
        for one in document["ceilings"]["by_threads"]:
            found.setdefault(one["threads"], []).append(1e9 * one[key])
    return {threads: median(found[threads]) for threads in sorted(found)}


def _stated(documents: Sequence[Document], stated: Assumptions) -> dict[str, Any]:
    def assumed(value: float, unit: str) -> Constant:
        return Constant(value, unit, "assumed", stated.source)

    memory = 1e9 * min(document["machine"]["memory_gb"] for document in documents)
    chunk, passes = "what the native engine computes at a time", "two int8 terms, as it splits them"
    return {
        "memory_bytes": Constant(_rounded(memory), "B", "measured", "all memory of the machine"),
        "cache_bytes": assumed(stated.cache_bytes, "B"),
        "chunk_tokens": Constant(ENGINE_CHUNK, "tokens", "measured", chunk),
        "projection_passes": Constant(ENGINE_PASSES, "passes", "measured", passes),
        "power": {phase: assumed(stated.watts, "W") for phase in ("prefill", "decode")},
        "electricity": assumed(stated.electricity, "$/kWh"),
        "per_hour": assumed(stated.per_hour, "$/h"),
    }


def _measured(rates: Mapping[int, float], unit: str, loop: str) -> dict[int, Constant]:
    source = f"{loop} of `mobilemoe bench`, median over its runs"
    return {
        threads: Constant(_rounded(rate), unit, "measured", source)
        for threads, rate in rates.items()
    }


def _by_format(table: str, costs: Mapping[str, Constant]) -> dict[Any, dict[str, Constant]]:
    """Return the costs whose path begins with `table`, by format and term."""
    found: dict[Any, dict[str, Constant]] = {}
    for path, cost in costs.items():
        first, name, term = path.split(".")
        if first == table:
            found.setdefault(name, {})[term] = cost
    return found


def _unit(path: str) -> str:
    return {**WEIGHT_TERMS, **ATTENTION_TERMS}[path.rpartition(".")[2]]


def _rounded(value: float) -> float:
    """Three digits: no bench repeats better."""
    return float(f"{value:.3g}")
