"""One timed prompt or decode, from a `mobilemoe bench` document or from a published table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, Literal

from mobilemoe.config import KvFormat, ModelConfig
from mobilemoe.errors import MobileMoEError
from mobilemoe.plan.device.terms import ATTENTION_TERMS, Rates, decode_terms, prefill_terms
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
        """Return the amounts of work at `rates`, by the path of their cost factor."""
        weights, depth = self.weight_format, self.positions
        if self.kind == "decode":
            found = decode_terms(self.config, depth, rates, weights, self.kv_format)
        else:
            found = prefill_terms(self.config, self.tokens, depth, rates, weights)
        return {self._path(term): amount for term, amount in found.items()}

    def _path(self, term: str) -> str:
        """Return the path of a cost factor in a profile's file."""
        if term in ATTENTION_TERMS:
            return f"attention.{self.kv_format}.{term}"
        return f"weights.{self.weight_format}.{term}"


def measurements_of(document: Mapping[str, Any]) -> tuple[Measurement, ...]:
    """Return the rows of a document of `mobilemoe bench`, of its own model only.

    Raises:
        MobileMoEError: if it is no such document, or says nothing of the model's shape.
    """
    try:
        return tuple(_rows(document))
    except (KeyError, TypeError, ZeroDivisionError) as error:
        raise MobileMoEError(
            f"not a document of this version's `mobilemoe bench -o json`: {error!r}",
            hint="run `mobilemoe bench PATH -o json` again",
        ) from error


def _rows(document: Mapping[str, Any]) -> Iterator[Measurement]:
    model = document["model"]
    config = ModelConfig.from_dict(model["config"])
    for row in document["rows"]:
        yield Measurement(
            model=model["name"],
            config=config,
            **{key: row[key] for key in ("kind", "tokens", "depth", "threads")},
            seconds=(row["tokens"] if row["kind"] == "prefill" else 1) / row["tok_s"],
            **{key: model[key] for key in ("weight_format", "kv_format")},
        )


def median_of_runs(measurements: Sequence[Measurement]) -> tuple[Measurement, ...]:
    """Return one measurement per case: the median of its seconds over the runs."""
    runs: dict[Measurement, list[float]] = {}
    for one in measurements:
        runs.setdefault(replace(one, seconds=0.0), []).append(one.seconds)
    return tuple(replace(case, seconds=median(seconds)) for case, seconds in runs.items())
