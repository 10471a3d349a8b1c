"""One context over a fixed stream of ids: brought to a depth, timed from there, brought back.

The token at position i of the stream is always the same, so a depth is prepared once: later
rounds rewind to it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mobilemoe.errors import MobileMoEError


class Context(Protocol):
    """What an engine offers: one sequence that grows and goes back."""

    def append(self, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        """Append ids and return the logits [V] after the last one."""

    def rewind(self, position: int) -> None:
        """Forget every token from `position` on."""


class Track:
    """A context that is filled with the stream `ids` from position 0 on."""

    def __init__(self, context: Context, ids: Sequence[int]) -> None:
        self._context = context
        self._ids = ids
        self._position = 0

    def restore(self, depth: int) -> None:
        """Bring the context to exactly the first `depth` ids."""
        if depth < self._position:
            self._context.rewind(depth)
        elif depth > self._position:
            self._context.append(self._slice(self._position, depth))
        self._position = depth

    def prefill(self, tokens: int, depth: int) -> list[float]:
        """Return the seconds in which `tokens` ids are appended at `depth`, as a list of one."""
        self.restore(depth)
        ids = self._slice(depth, depth + tokens)
        started = time.perf_counter()
        self._context.append(ids)
        seconds = time.perf_counter() - started
        self._position = depth + tokens
        return [seconds]

    def decode(self, tokens: int, depth: int) -> list[float]:
        """Return the seconds of each of `tokens` single steps from `depth` on.

        The first step reads the stream, every other one the likeliest token of the one before,
        whatever it is: an end-of-turn id must not end a round early.
        """
        self.restore(depth)
        (token,) = self._slice(depth, depth + 1)
        marks = [time.perf_counter()]
        for _ in range(tokens):
            token = int(self._context.append([token]).argmax())
            marks.append(time.perf_counter())
        self._context.rewind(depth)
        return [end - start for start, end in pairwise(marks)]

    def run(self, kind: str, tokens: int, depth: int) -> list[float]:
        """Return the seconds of one prefill or decode round."""
        return self.prefill(tokens, depth) if kind == "prefill" else self.decode(tokens, depth)

    def _slice(self, start: int, stop: int) -> Sequence[int]:
        if stop > len(self._ids):
            raise MobileMoEError(
                f"the prompt has {len(self._ids)} tokens and {stop} are asked for",
                hint="give a longer prompt",
            )
        return self._ids[start:stop]


def case_of(request: dict[str, Any]) -> tuple[str, int, int]:
    """Return kind, tokens and depth of a request."""
    return request["kind"], request["tokens"], request["depth"]
