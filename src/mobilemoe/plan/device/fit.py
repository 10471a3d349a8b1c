"""From measurements to cost factors: nonnegative least squares on the relative error.

Time is linear in the factors, so relative errors are, too: sum_k factor_k amount_nk / seconds_n
should be 1 in every row n. What the fit is worth is said by leaving out: rows are predicted by
factors that were fitted without them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from mobilemoe.errors import MobileMoEError
from mobilemoe.plan.device.measurement import Measurement
from mobilemoe.plan.device.nnls import nonnegative_least_squares
from mobilemoe.plan.device.terms import Rates

RatesBy = Callable[[Measurement], Rates]


@dataclass(frozen=True)
class Prediction:
    """A measurement, and what the model says of it without having seen it (or its group)."""

    measurement: Measurement
    seconds: float

    @property
    def error(self) -> float:
        """Predicted over measured, less 1."""
        return self.seconds / self.measurement.seconds - 1


def fit_costs(
    rows: Sequence[Measurement], rates_of: RatesBy, terms: Sequence[str]
) -> dict[str, float]:
    """Return the factor of each of `terms`; `rates_of` gives the rates of a row's threads.

    Raises:
        MobileMoEError: if there are fewer rows than terms.
    """
    if len(rows) < len(terms):
        raise MobileMoEError(
            f"{len(rows)} measurements for {len(terms)} constants; allowed: at least as many",
            hint="measure more depths, prompt lengths and shapes",
        )
    amounts = [row.amounts(rates_of(row)) for row in rows]
    matrix_NK = np.array(
        [
            [one.get(term, 0.0) / row.seconds for term in terms]
            for one, row in zip(amounts, rows, strict=True)
        ]
    )
    factors_K = nonnegative_least_squares(matrix_NK, np.ones(len(rows)))
    return {term: float(factor) for term, factor in zip(terms, factors_K, strict=True)}


def predict(row: Measurement, rates_of: RatesBy, costs: Mapping[str, float]) -> Prediction:
    """Return what `costs` say of `row`."""
    amounts = row.amounts(rates_of(row))
    return Prediction(row, sum(costs.get(term, 0.0) * value for term, value in amounts.items()))


def left_out(
    rows: Sequence[Measurement],
    rates_of: RatesBy,
    terms: Sequence[str],
    group: Callable[[Measurement], Hashable],
) -> tuple[Prediction, ...]:
    """Leave out each group of rows in turn and predict it from the others."""
    found = []
    for key in dict.fromkeys(map(group, rows)):
        costs = fit_costs([row for row in rows if group(row) != key], rates_of, terms)
        found += [predict(row, rates_of, costs) for row in rows if group(row) == key]
    return tuple(found)


def median_error(predictions: Sequence[Prediction]) -> float:
    """Return the median of the absolute relative errors."""
    return median(abs(one.error) for one in predictions)
