"""What comparing two neighbouring columns gives: local comparisons with their bounds, and the
figures of two whole forward passes.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

Kind = Literal["rounding", "int8", "int4"]

# How many times the expected norm of a difference is allowed. The expected norm is a root mean
# square over many elements, which hardly varies; what the factor covers is the model of the noise:
# the order in which a matrix library adds, and terms of second order.
SAFETY = 4.0
# Exact neighbours run the same model: over a whole forward pass only a near tie in a router may
# part them, on few tokens. This is far below what rounding does and far above what a fault does.
END_TO_END_COSINE = 0.999


@dataclass(frozen=True)
class Comparison:
    """One tensor of one layer, computed by two columns from the same input.

    `measured` is the Frobenius norm of the difference over that of the reference; `expected` is
    the root mean square that the noise model gives, on the same scale, and `allowed` the bound.
    `layer` is None for the logits.
    """

    layer: int | None
    tensor: str
    measured: float
    expected: float
    allowed: float

    @property
    def passed(self) -> bool:
        """Whether the difference is within the bound; NaN is not."""
        return self.measured <= self.allowed

    @property
    def ratio(self) -> float:
        """Measured over expected: about 1 where the noise model fits."""
        if self.measured == 0:
            return 0.0
        return self.measured / self.expected if self.expected else math.inf

    @property
    def where(self) -> str:
        """The tensor in words."""
        return self.tensor if self.layer is None else f"layer {self.layer} {self.tensor}"

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as JSON data."""
        return asdict(self) | {"ratio": self.ratio, "passed": self.passed}


@dataclass(frozen=True)
class EndToEnd:
    """Two whole forward passes, each on its own residual stream.

    `sets_differ` is the share of tokens whose set of experts differs in any layer, `worst_layer`
    the layer where most do, with its share; None in a dense model. The cosines are of the logits
    of one token; `argmax_agreement` is the share of tokens with the same likeliest successor;
    `max_relative_error` the largest difference of logits over the largest logit.
    """

    sets_differ: float | None
    worst_layer: int | None
    worst_layer_sets_differ: float | None
    median_cosine: float
    min_cosine: float
    argmax_agreement: float
    max_relative_error: float


@dataclass(frozen=True)
class Pair:
    """Two neighbouring columns; `skipped` says why they were not compared.

    An `informational` pair is measured like any other and fails nothing. A `refused` pair was
    skipped because a column refused the checkpoint, which is a failure.
    """

    left: str
    right: str
    kind: Kind
    informational: bool = False
    skipped: str | None = None
    refused: bool = False
    comparisons: tuple[Comparison, ...] = ()
    end_to_end: EndToEnd | None = None

    @property
    def name(self) -> str:
        """The pair in words."""
        return f"{self.left} -> {self.right}"

    @property
    def worst(self) -> Comparison | None:
        """The comparison that comes nearest to its bound, or goes furthest beyond."""
        return max(self.comparisons, key=_severity, default=None)

    @property
    def first_failure(self) -> Comparison | None:
        """The first comparison beyond its bound, in the order of the forward pass."""
        return next((c for c in self.comparisons if not c.passed), None)

    @property
    def parted(self) -> bool:
        """Whether exact neighbours give different logits over a whole forward pass."""
        if self.kind != "rounding" or self.end_to_end is None:
            return False
        return not self.end_to_end.median_cosine >= END_TO_END_COSINE

    def to_dict(self) -> dict[str, Any]:
        """Return the pair as JSON data."""
        worst, first = self.worst, self.first_failure
        return {
            "left": self.left,
            "right": self.right,
            "kind": self.kind,
            "informational": self.informational,
            "skipped": self.skipped,
            "refused": self.refused,
            "worst": None if worst is None else worst.to_dict(),
            "first_failure": None if first is None else first.to_dict(),
            "comparisons": [comparison.to_dict() for comparison in self.comparisons],
            "end_to_end": None if self.end_to_end is None else asdict(self.end_to_end),
        }


@dataclass(frozen=True)
class Parity:
    """All columns compared: `columns` maps each to None, or to why it is not there.

    `prompt` says what the tokens `ids` are, `kernels` which instruction set the engine used.
    """

    ids: tuple[int, ...]
    prompt: str
    kernels: str | None
    columns: dict[str, str | None]
    pairs: tuple[Pair, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as JSON data."""
        return {
            "prompt": self.prompt,
            "ids": self.ids,
            "kernels": self.kernels,
            "safety": SAFETY,
            "columns": self.columns,
            "pairs": [pair.to_dict() for pair in self.pairs],
        }


def _severity(comparison: Comparison) -> float:
    """How far along its bound a comparison is; a NaN is the worst of all."""
    if math.isnan(comparison.measured) or math.isnan(comparison.allowed):
        return math.inf
    if comparison.measured == 0:
        return 0.0
    return comparison.measured / comparison.allowed if comparison.allowed else math.inf
