"""What a run has finished, one JSON file per part, so that a second start goes on from there."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobilemoe.atomic import atomic_write
from mobilemoe.errors import MobileMoEError


@dataclass(frozen=True)
class Parts:
    """The finished parts of the run in `folder`."""

    folder: Path

    def path(self, name: str) -> Path:
        """Where part `name` is kept."""
        return self.folder / "parts" / f"{name}.json"

    def read(self, name: str) -> dict[str, Any] | None:
        """Return the saved part, or None if it is not finished.

        Raises:
            MobileMoEError: if its file is damaged.
        """
        path = self.path(name)
        if not path.exists():
            return None
        try:
            value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise MobileMoEError(
                f"{path} is damaged: {error}", hint="delete that file to redo this part"
            ) from error
        return value

    def seconds_spent(self) -> float:
        """Return the wall time of all finished parts."""
        names = [path.stem for path in self.path("any").parent.glob("*.json")]
        return sum(float((self.read(name) or {}).get("wall_seconds", 0)) for name in names)

    def get(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return part `name`, making and saving it first if need be.

        Its wall time is added as `wall_seconds`.
        """
        saved = self.read(name)
        if saved is None:
            started = time.monotonic()
            saved = make()
            elapsed = time.monotonic() - started
            # a stage that was interrupted knows the time of its earlier steps, too
            saved["wall_seconds"] = max(elapsed, float(saved.get("seconds", 0)))
            atomic_write(self.path(name), json.dumps(saved))
        return saved
