"""One timed prompt or decode, from a `mobilemoe bench` document or from a published table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mobilemoe.config import KvFormat, ModelConfig
from mobilemoe.errors import MobileMoEError
from mobilemoe.plan.device.terms import Rates, decode_terms, prefill_terms
from mobilemoe.weights import WeightFormat


@dataclass(frozen=True)
class Measurement:
    """Seconds of one prompt (`tokens` after `depth`), or of one token of a decode of `tokens`."""

    model: str
    config: ModelConfig
    kind: Literal["prefill", "decode"]
    tokens: int
    depth: int
    threads: int
    seconds: float
    weight_format: WeightFormat = "int4"
    kv_format: KvFormat = "int8"

    @property
    def positions(self) -> float:
        """The mean depth of the measured steps: a decode grows the cache while it runs."""
        return self.depth + (self.tokens - 1) / 2 if self.kind == "decode" else self.depth

    def amounts(self, rates: Rates) -> dict[str, float]:
        """Return the amounts of work at `rates`, by term."""
        formats = (self.weight_format, self.kv_format)
        if self.kind == "decode":
            return decode_terms(self.config, self.positions, rates, *formats)
        return prefill_terms(self.config, self.tokens, self.depth, rates, *formats)


def measurements_of(document: Mapping[str, Any]) -> Iterator[Measurement]:
    """Yield the rows of a document of `mobilemoe bench`, of its own model only.

    Raises:
        MobileMoEError: if it is no such document, or says nothing of the model's shape.
    """
    try:
        model, rows = document["model"], document["rows"]
        shape = dict(model["config"])
        formats = {key: model[key] for key in ("weight_format", "kv_format")}
    except (KeyError, TypeError, ValueError) as error:
        raise MobileMoEError(
            f"not a document of `mobilemoe bench -o json`: {error} is missing",
            hint="run `mobilemoe bench PATH -o json` of this version, without --vs",
        ) from error
    config = ModelConfig.from_dict(shape)
    for row in rows:
        tokens = row["tokens"]
        yield Measurement(
            model=model["name"],
            config=config,
            **{key: row[key] for key in ("kind", "tokens", "depth", "threads")},
            seconds=(tokens if row["kind"] == "prefill" else 1) / row["tok_s"],
            **formats,
        )


def median_of_runs(measurements: Sequence[Measurement]) -> tuple[Measurement, ...]:
    """Return one measurement per case: the median of its seconds over the runs."""
    from dataclasses import replace
    from statistics import median

    runs: dict[Measurement, list[float]] = {}
    for one in measurements:
        runs.setdefault(replace(one, seconds=0.0), []).append(one.seconds)
    return tuple(replace(case, seconds=median(seconds)) for case, seconds in runs.items())
