"""The columns that the native engine computes: its exact mode and its fast one.

T tokens, D hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mobilemoe.engine import Activations, load
from mobilemoe.engine.native import native_module
from mobilemoe.errors import MobileMoEError
from mobilemoe.verify.columns import Floats, LayerOutput, Run


def engine_problem() -> str | None:
    """Return why the native engine cannot be used; None if it can."""
    try:
        native_module()
    except MobileMoEError as error:
        return error.message
    return None


class EngineColumn:
    """The engine on the checkpoint folder `path`, with room for `tokens` tokens.

    Raises:
        MobileMoEError: if the engine refuses the checkpoint.
    """

    def __init__(self, path: Path, activations: Activations, tokens: int) -> None:
        self._model = load(path, context=tokens, activations=activations)
        self._probe = self._model.probe(tokens)
        self._layer = 0
        self._run: Run

    @property
    def kernels(self) -> str:
        """The instruction set in use."""
        return self._model.instruction_set

    def start(self, ids_T: Sequence[int]) -> None:
        """Run the whole forward pass, as a user's program would."""
        session = self._model.session()
        logits_TV = session.append_all(ids_T)
        ids = session.routing() if self._model.config.is_moe else None
        self._run = Run(logits_TV, None if ids is None else ids.astype(np.int64))

    def enter(self, layer: int) -> None:
        """Make `layer` the current one."""
        self._layer = layer

    def attention(self, x_TD: Floats) -> Floats:
        """Return what attention adds to x."""
        return self._probe.attention(self._layer, np.ascontiguousarray(x_TD, np.float32))

    def feed_forward(self, x_TD: Floats) -> LayerOutput:
        """Return what the feed-forward adds to x, and its routing."""
        x_TD = np.ascontiguousarray(x_TD, np.float32)
        y_TD, router_logits_TE, topk_ids_TK = self._probe.feed_forward(self._layer, x_TD)
        if not self._model.config.is_moe_layer(self._layer):
            return LayerOutput(y_TD)
        return LayerOutput(y_TD, router_logits_TE, topk_ids_TK.astype(np.int64))

    def head(self, x_TD: Floats) -> Floats:
        """Return the logits of the residual stream x."""
        return self._probe.head(np.ascontiguousarray(x_TD, np.float32))

    def run(self) -> Run:
        """Return the logits and the routing of the whole forward pass."""
        return self._run
