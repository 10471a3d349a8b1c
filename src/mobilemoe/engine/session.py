"""One growing context over a model: append tokens, read logits, rewind, continue a prompt.

T tokens of a call, V vocabulary, C context, L layers that route, K top-k.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mobilemoe.engine.checks import is_integer, require
from mobilemoe.engine.native import native_errors, native_module

if TYPE_CHECKING:
    from mobilemoe.engine import _native

Ids = Sequence[int] | npt.NDArray[np.integer]
Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]

PREFILL_CHUNK = 256


@dataclass(frozen=True)
class Prefill:
    """How far a prefill is: ids `done` of `total`, and the logits [V] after the last of them."""

    done: int
    total: int
    logits_V: Float32


class Session:
    """The state of one sequence: its token ids and its key-value cache.

    Any number of sessions share one model; each computes under the model's lock. A call that
    raises leaves the session as it was. The bits of the logits do not depend on how ids are
    split over calls, on other sessions, nor on the number of threads.
    """

    def __init__(
        self, model: _native.Model, context: int, int8: bool, kv: str, vocab_size: int
    ) -> None:
        self._model = model
        self._vocab_size = vocab_size
        with native_errors():
            self._session: _native.Session = native_module().Session(model, context, int8, kv)
        self._ids_C = np.zeros(context, np.int32)  # valid up to the position
        self._lock = threading.RLock()  # keeps ids and position together

    def append(self, ids: Ids) -> Float32:
        """Append T >= 1 token ids and return the logits [V] after the last one.

        Raises:
            MobileMoEError: for an id outside the vocabulary, no ids, or more than fit.
        """
        return self._append(self._session.append, ids)

    def append_all(self, ids: Ids) -> Float32:
        """Append T >= 1 token ids and return the logits [T, V] after each; raises as `append`."""
        return self._append(self._session.append_all, ids)

    def prefill(self, ids: Ids, chunk: int = PREFILL_CHUNK) -> Iterator[Prefill]:
        """Append `ids` in pieces of `chunk`, as the iterator is advanced; yield after each.

        A caller that stops in between has a session that ends with the last piece.

        Raises:
            MobileMoEError: at the call, as `append`, or for a chunk below 1; while iterating, if
                the session was used or rewound between two pieces.
        """
        ids_T = checked_ids(ids, self._vocab_size).copy()
        position = self.position
        free = self.context - position
        hint = "choose a larger context, or shorten the prompt"
        require(len(ids_T) <= free, "number of ids", len(ids_T), f"at most {free}", hint)
        valid = is_integer(chunk) and chunk >= 1
        require(valid, "chunk", chunk, "an integer, 1 or more", "leave it out for the best size")
        return self._pieces(ids_T, position, chunk)

    def rewind(self, position: int) -> None:
        """Forget every token from `position` on.

        Raises:
            MobileMoEError: if `position` is negative or beyond the current one.
        """
        hint = "a session can only go back"
        with self._lock, native_errors():
            valid = is_integer(position) and 0 <= position <= self.position
            require(valid, "position", position, f"0 to {self.position}", hint)
            self._session.rewind(position)

    def common_prefix(self, ids: Ids) -> int:
        """Return how many of the first `ids` are those of this session.

        Raises:
            MobileMoEError: for an id outside the vocabulary, or no ids.
        """
        return self._shared(checked_ids(ids, self._vocab_size))

    def reuse(self, ids: Ids, limit: int | None = None) -> int:
        """Rewind to the longest prefix shared with `ids` and return its length n.

        At most `limit` ids are kept, by default all but the last, so that `append(ids[n:])`
        gives the logits after `ids`.

        Raises:
            MobileMoEError: for ids that an empty session would refuse; nothing is rewound then.
        """
        ids_T = checked_ids(ids, self._vocab_size)
        hint = "choose a larger context, or shorten the prompt"
        allowed = f"at most {self.context}, the context"
        require(len(ids_T) <= self.context, "number of ids", len(ids_T), allowed, hint)
        limit = len(ids_T) - 1 if limit is None else limit
        valid = is_integer(limit) and 0 <= limit <= len(ids_T)
        require(valid, "limit", limit, f"0 to {len(ids_T)}", "leave it out to keep all but one")
        with self._lock:
            kept = self._shared(ids_T[:limit])
            self.rewind(kept)
        return kept

    def routing(self) -> Int32:
        """Return the experts [L, T, K] chosen in the last append, best first."""
        with native_errors():
            return self._session.routing()

    @property
    def ids(self) -> list[int]:
        """The tokens in the context."""
        with self._lock:
            ids: list[int] = self._ids_C[: self.position].tolist()
        return ids

    @property
    def position(self) -> int:
        """Tokens in the context."""
        return self._session.position

    @property
    def context(self) -> int:
        """Tokens that fit."""
        return self._session.context

    def belongs_to(self, model: _native.Model) -> bool:
        """Whether this is a session of `model`."""
        return self._model is model

    def require_at(self, position: int) -> None:
        """Refuse to go on from `position` if somebody else moved the session meanwhile.

        Raises:
            MobileMoEError: if the session is elsewhere.
        """
        hint = "one prefill or generation at a time; give each its own session"
        require(self.position == position, "position", self.position, str(position), hint)

    def _append(self, call: Callable[[Int32], Float32], ids: Ids) -> Float32:
        """Append with `call`; the ids are written first, and count once the position has moved.

        So they agree after a failure, and after Ctrl-C at any moment. They are put back after a
        failure because `call` may run a signal handler that fails to append to this session.
        """
        ids_T = checked_ids(ids, self._vocab_size)
        with self._lock, native_errors():
            start = self._session.position
            slots_T = self._ids_C[start : start + len(ids_T)]
            before_T = slots_T.copy()
            slots_T[:] = ids_T[: len(slots_T)]
            try:
                return call(ids_T)
            finally:
                if self._session.position == start:
                    slots_T[:] = before_T

    def _shared(self, ids_T: Int32) -> int:
        with self._lock:
            length = min(self.position, len(ids_T))
            differ_T = self._ids_C[:length] != ids_T[:length]
        return int(np.argmax(differ_T)) if differ_T.any() else length

    def _pieces(self, ids_T: Int32, position: int, chunk: int) -> Iterator[Prefill]:
        for first in range(0, len(ids_T), chunk):
            self.require_at(position + first)
            piece_T = ids_T[first : first + chunk]
            yield Prefill(first + len(piece_T), len(ids_T), self.append(piece_T))


def checked_ids(ids: Ids, vocab_size: int) -> Int32:
    """Return `ids` as an array [T].

    Raises:
        MobileMoEError: for no ids, anything but integers, or an id outside the vocabulary.
    """
    hint = "encode text with the checkpoint's tokenizer"
    try:
        ids_T = np.asarray(ids)
    except ValueError:  # rows of different lengths
        ids_T = np.empty(0)
    integral = ids_T.ndim == 1 and ids_T.size > 0 and ids_T.dtype.kind in "iu"
    require(integral, "ids", ids, "a non-empty sequence of integers", hint)
    outside_T = (ids_T < 0) | (ids_T >= vocab_size)
    if outside_T.any():
        worst = int(ids_T[int(np.argmax(outside_T))])
        require(False, "token id", worst, f"0 to {vocab_size - 1}", hint)
    return np.ascontiguousarray(ids_T, dtype=np.int32)
