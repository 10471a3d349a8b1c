"""Stop strings: text that ends a generation and is never shown, not even in part."""

from __future__ import annotations

from collections.abc import Sequence

from mobilemoe.engine.checks import require


class StopMatcher:
    """Lets text through as soon as it cannot become part of a stop string any more.

    Raises:
        MobileMoEError: for a stop string that is empty or not a string.
    """

    def __init__(self, stop: str | Sequence[str]) -> None:
        self._stops = (stop,) if isinstance(stop, str) else tuple(stop)
        for text in self._stops:
            valid = isinstance(text, str) and text != ""
            require(valid, "stop", text, "non-empty strings", "pass () to stop at nothing")
        self._held = ""

    def __bool__(self) -> bool:
        """Whether there is anything to stop at."""
        return bool(self._stops)

    def push(self, text: str) -> tuple[str, bool]:
        """Return the text that may be shown now, and whether a stop string is complete."""
        held = self._held + text
        found = [at for stop in self._stops if (at := held.find(stop)) >= 0]
        if found:
            self._held = ""
            return held[: min(found)], True
        keep = max((_overlap(held, stop) for stop in self._stops), default=0)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep], False

    def flush(self) -> str:
        """Return the text held back, when nothing can follow."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` with which `stop` begins, short of all of it."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
