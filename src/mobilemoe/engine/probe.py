"""One layer's parts on given inputs, computed exactly as a session computes them.

For a comparison layer by layer: what differs first, and where. T tokens, D hidden, E experts,
K top-k, V vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from mobilemoe.engine.checks import is_integer, require
from mobilemoe.engine.native import native_errors, native_module

if TYPE_CHECKING:
    from mobilemoe.engine import _native

Float32 = npt.NDArray[np.float32]


class FeedForwardOutput(NamedTuple):
    """What a feed-forward part computed; in a dense layer E and K are 0."""

    y_TD: Float32
    router_logits_TE: Float32  # before the sigmoid
    topk_ids_TK: npt.NDArray[np.int32]  # best expert first


class LayerProbe:
    """Runs parts of single layers; `Model.probe` makes it.

    Inputs are the residual stream x_TD: each part applies its own norm first. Outputs are what
    the part adds to x_TD, not the sum, so that `x + attention(x)` and then
    `x + feed_forward(x).y_TD` in float32, layer after layer, and `head` at the end give the bits
    of `Model.logits`. Computes under the model's lock, like a session.
    """

    def __init__(
        self,
        model: _native.Model,
        tokens: int,
        int8: bool,
        kv: str,
        layers: int,
        hidden_size: int,
    ) -> None:
        require(is_integer(tokens), "tokens", tokens, "an integer", "rows of the largest input")
        self._tokens, self._layers, self._hidden_size = tokens, layers, hidden_size
        with native_errors():
            self._probe: _native.testing.LayerProbe = native_module().testing.LayerProbe(
                model, tokens, int8, kv
            )

    def attention(self, layer: int, x_TD: Float32) -> Float32:
        """Return what attention adds [T, D], causal, for rows at the positions 0 to T - 1.

        Raises:
            MobileMoEError: for a layer that does not exist, or an `x_TD` that is not float32 of
                1 to `tokens` rows of width D.
        """
        self._check(layer, x_TD)
        with native_errors():
            return self._probe.attention(layer, np.ascontiguousarray(x_TD))

    def feed_forward(self, layer: int, x_TD: Float32) -> FeedForwardOutput:
        """Return what the feed-forward part adds, routed plus shared, and how it routed.

        Raises:
            MobileMoEError: as `attention`.
        """
        self._check(layer, x_TD)
        with native_errors():
            return FeedForwardOutput(*self._probe.feed_forward(layer, np.ascontiguousarray(x_TD)))

    def head(self, x_TD: Float32) -> Float32:
        """Return the logits [T, V] of the final norm and the head.

        Raises:
            MobileMoEError: for an `x_TD` as in `attention`.
        """
        self._check(0, x_TD)
        with native_errors():
            return self._probe.head(np.ascontiguousarray(x_TD))

    def _check(self, layer: int, x_TD: Float32) -> None:
        valid = is_integer(layer) and 0 <= layer < self._layers
        require(valid, "layer", layer, f"0 to {self._layers - 1}", "layers count from 0")
        is_float32 = isinstance(x_TD, np.ndarray) and x_TD.dtype == np.float32 and x_TD.ndim == 2
        rows, width = x_TD.shape if is_float32 else (0, 0)
        require(
            is_float32 and 1 <= rows <= self._tokens and width == self._hidden_size,
            "x_TD",
            f"{x_TD.dtype} {list(x_TD.shape)}" if isinstance(x_TD, np.ndarray) else x_TD,
            f"float32 [1 to {self._tokens}, {self._hidden_size}]",
            "make the probe with as many tokens as its largest input has rows",
        )
