"""Sessions kept for their prefixes: a prompt that begins like an earlier one costs only its end.

An explicit object, one per model and owner; nothing is global.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mobilemoe.engine.checks import is_integer, require
from mobilemoe.engine.session import Ids, Int32, Session, checked_ids
from mobilemoe.errors import MobileMoEError

if TYPE_CHECKING:
    from mobilemoe.engine.model import Model

MAX_SESSIONS = 4


class SessionPool:
    """Up to `max_sessions` sessions of one model that together take at most `max_bytes`.

    Each counts with what it takes when its context is full (`Model.session_bytes`), so that the
    limit holds whatever they are used for. May be shared by threads.

    Raises:
        MobileMoEError: for limits below 1, or when not one session fits.
    """

    def __init__(
        self, model: Model, max_sessions: int = MAX_SESSIONS, max_bytes: int | None = None
    ) -> None:
        valid = is_integer(max_sessions) and max_sessions >= 1
        hint = "each runs one sequence at a time"
        require(valid, "max_sessions", max_sessions, "an integer, 1 or more", hint)
        each = model.session_bytes
        valid = max_bytes is None or (is_integer(max_bytes) and max_bytes >= each)
        hint = "load the model with a smaller context"
        require(valid, "max_bytes", max_bytes, f"{each} (one session) or more", hint)
        fitting = max_sessions if max_bytes is None else max_bytes // each
        self._model = model
        self._capacity = min(max_sessions, fitting)
        self._idle: list[Session] = []  # least recently used first
        self._lent = 0
        self._lock = threading.Lock()

    @contextmanager
    def lend(self, ids: Ids) -> Iterator[Session]:
        """Lend the session that saves the most, rewound to what it shares with `ids`.

        At least one of `ids` is left to append, as in `Session.reuse`. A kept session is taken
        if it shares at least as many tokens as it has to forget; otherwise a new one, or,
        without room, the least recently used. It is kept for the next prompt afterwards.

        Raises:
            MobileMoEError: for ids that an empty session would refuse, and if every session is
                lent.
        """
        ids_T = checked_ids(ids, self._model.config.vocab_size)
        session = self._take(ids_T)
        try:
            session.reuse(ids_T)
            yield session
        finally:
            with self._lock:
                self._lent -= 1
                self._idle.append(session)

    def clear(self) -> None:
        """Drop every session that is not lent, and its memory."""
        with self._lock:
            self._idle.clear()

    @property
    def capacity(self) -> int:
        """Sessions that there can be."""
        return self._capacity

    @property
    def sessions(self) -> int:
        """Sessions that there are, lent ones included."""
        with self._lock:
            return len(self._idle) + self._lent

    @property
    def bytes(self) -> int:
        """What they take when their contexts are full."""
        return self.sessions * self._model.session_bytes

    def _take(self, ids_T: Int32) -> Session:
        with self._lock:
            session = self._pick(ids_T)
            self._lent += 1
        return session

    def _pick(self, ids_T: Int32) -> Session:
        shared = [kept.common_prefix(ids_T) for kept in self._idle]
        forgotten = [kept.position - n for kept, n in zip(self._idle, shared, strict=True)]
        best = max(range(len(shared)), key=lambda i: (shared[i], -forgotten[i]), default=None)
        if best is not None and shared[best] >= forgotten[best]:
            return self._idle.pop(best)
        if len(self._idle) + self._lent < self._capacity:
            return self._model.session()
        if self._idle:
            return self._idle.pop(0)
        raise MobileMoEError(
            f"all {self._capacity} sessions are in use",
            hint="wait for one to end, or allow more sessions or bytes",
        )
