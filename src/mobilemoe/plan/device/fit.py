"""From measurements to cost factors: nonnegative least squares on the relative error.

Time is linear in the factors, so relative errors are, too: sum_k factor_k amount_nk / seconds_n
should be 1 in every row n. What the fit is worth is said by leaving out: rows are predicted by
factors that were fitted without them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from mobilemoe.errors import MobileMoEError
from mobilemoe.plan.device.measurement import Measurement
from mobilemoe.plan.device.nnls import nonnegative_least_squares
from mobilemoe.plan.device.terms import Rates

RatesOf = Callable[[Measurement], Rates]
Costs = Mapping[str, float]


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
    rows: Sequence[Measurement], rates_of: RatesOf, terms: Collection[str] | None = None
) -> dict[str, float]:
    """Return the factor of each kind of work that occurs in `rows`, by its path in a profile.

    `rates_of` gives the rates of a row's threads; `terms`: only these names (the last part of a
    path) may cost anything.

    Raises:
        MobileMoEError: if there are fewer rows than factors.
    """
    amounts = [row.amounts(rates_of(row)) for row in rows]
    paths = dict.fromkeys(path for one in amounts for path in one)
    wanted = [path for path in paths if terms is None or path.rpartition(".")[2] in terms]
    if len(rows) < len(wanted):
        raise MobileMoEError(
            f"{len(rows)} measurements for {len(wanted)} constants; allowed: at least as many",
            hint="measure prompts and decoding, at several depths, on several shapes",
        )
    matrix_NK = np.array(
        [
            [one.get(path, 0.0) / row.seconds for path in wanted]
            for one, row in zip(amounts, rows, strict=True)
        ]
    )
    factors_K = nonnegative_least_squares(matrix_NK, np.ones(len(rows)))
    return dict(zip(wanted, factors_K.tolist(), strict=True))


def predict(row: Measurement, rates_of: RatesOf, costs: Costs) -> Prediction:
    """Return what `costs` say of `row`."""
    amounts = row.amounts(rates_of(row))
    return Prediction(row, sum(costs.get(path, 0.0) * value for path, value in amounts.items()))


def left_out(
    rows: Sequence[Measurement],
    rates_of: RatesOf,
    group: Callable[[Measurement], Hashable],
    terms: Collection[str] | None = None,
) -> tuple[Prediction, ...]:
    """Leave out each group of rows in turn and predict it from the others.

    Raises:
        MobileMoEError: if all rows are one group, or too few are left.
    """
    keys = list(dict.fromkeys(map(group, rows)))
    if len(keys) == 1:
        raise MobileMoEError("nothing can be left out: all measurements are of one group")
    found = []
    for key in keys:
        costs = fit_costs([row for row in rows if group(row) != key], rates_of, terms)
        found += [predict(row, rates_of, costs) for row in rows if group(row) == key]
    return tuple(found)


def median_error(predictions: Sequence[Prediction]) -> float:
    """Return the median of the absolute relative errors."""
    return median(abs(one.error) for one in predictions)
