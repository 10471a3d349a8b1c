"""One growing context over a model: append tokens, read logits, rewind.

T tokens of a call, V vocabulary, L layers that route, K top-k.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mobilemoe.engine.checks import is_integer, require
from mobilemoe.engine.native import native_errors, native_module

if TYPE_CHECKING:
    from mobilemoe.engine import _native

Ids = Sequence[int] | npt.NDArray[np.integer]
Float32 = npt.NDArray[np.float32]


class Session:
    """The state of one conversation: its position and its key-value cache.

    Any number of sessions share one model; each computes under the model's lock. A call that
    raises leaves the session as it was. The bits of the logits do not depend on how ids are
    split over calls, nor on the number of threads.
    """

    def __init__(
        self, model: _native.Model, context: int, int8: bool, kv: str, vocab_size: int
    ) -> None:
        self._vocab_size = vocab_size
        with native_errors():
            self._session: _native.Session = native_module().Session(model, context, int8, kv)

    def append(self, ids: Ids) -> Float32:
        """Append T >= 1 token ids and return the logits [V] after the last one.

        Raises:
            MobileMoEError: for an id outside the vocabulary, no ids, or more than fit.
        """
        ids_T = self._checked(ids)
        with native_errors():
            return self._session.append(ids_T)

    def append_all(self, ids: Ids) -> Float32:
        """Append T >= 1 token ids and return the logits [T, V] after each; raises as `append`."""
        ids_T = self._checked(ids)
        with native_errors():
            return self._session.append_all(ids_T)

    def rewind(self, position: int) -> None:
        """Forget every token from `position` on.

        Raises:
            MobileMoEError: if `position` is negative or beyond the current one.
        """
        allowed = f"0 to {self.position}"
        hint = "a session can only go back"
        valid = is_integer(position) and 0 <= position <= self.position
        require(valid, "position", position, allowed, hint)
        with native_errors():
            self._session.rewind(position)

    def routing(self) -> npt.NDArray[np.int32]:
        """Return the experts [L, T, K] chosen in the last append, best first."""
        with native_errors():
            return self._session.routing()

    @property
    def position(self) -> int:
        """Tokens in the context."""
        return self._session.position

    @property
    def context(self) -> int:
        """Tokens that fit."""
        return self._session.context

    def _checked(self, ids: Ids) -> npt.NDArray[np.int32]:
        hint = "encode text with the checkpoint's tokenizer"
        try:
            ids_T = np.asarray(ids)
        except ValueError:  # rows of different lengths
            ids_T = np.empty(0)
        integral = ids_T.ndim == 1 and ids_T.size > 0 and ids_T.dtype.kind in "iu"
        require(integral, "ids", ids, "a non-empty sequence of integers", hint)
        outside_T = (ids_T < 0) | (ids_T >= self._vocab_size)
        if outside_T.any():
            worst = int(ids_T[int(np.argmax(outside_T))])
            require(False, "token id", worst, f"0 to {self._vocab_size - 1}", hint)
        return np.ascontiguousarray(ids_T, dtype=np.int32)
