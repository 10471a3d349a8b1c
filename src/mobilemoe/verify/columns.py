"""What a column of the comparison is: one way to compute the same model.

T tokens, D hidden, E experts, K top-k, L layers that route, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[Any]
Int64 = npt.NDArray[np.int64]

TORCH_FP32 = "torch fp32"
TORCH_FAKE = "torch fake-quantised"
FILE = "file"
ENGINE_EXACT = "engine exact"
ENGINE_INT8 = "engine int8"
COLUMNS = (TORCH_FP32, TORCH_FAKE, FILE, ENGINE_EXACT, ENGINE_INT8)


@dataclass(frozen=True)
class LayerOutput:
    """What the feed-forward of one layer adds to the residual stream, and its routing."""

    feed_forward_TD: Floats
    router_logits_TE: Floats | None = None
    topk_ids_TK: Int64 | None = None


@dataclass(frozen=True)
class Run:
    """A whole forward pass of one column; `topk_ids_LTK` is None for a dense model."""

    logits_TV: Floats
    topk_ids_LTK: Int64 | None


class Column(Protocol):
    """Computes the parts of a layer from a given residual stream, and a forward pass of its own.

    The order of calls is `start`, for each layer `enter`, `attention`, `feed_forward`, then
    `head`, then `run`; no other column is called between `enter` and `feed_forward`.
    """

    def start(self, ids_T: Sequence[int]) -> None:
        """Begin the column's own forward pass over `ids_T`."""

    def enter(self, layer: int) -> None:
        """Make `layer` the current one, and take the column's own forward pass through it."""

    def attention(self, x_TD: Floats) -> Floats:
        """Return what attention adds to the residual stream x [T, D]."""

    def feed_forward(self, x_TD: Floats) -> LayerOutput:
        """Return what the feed-forward adds to x, which has the attention in it."""

    def head(self, x_TD: Floats) -> Floats:
        """Return the logits [T, V] of the residual stream after the last layer."""

    def run(self) -> Run:
        """Return the column's own forward pass."""
