"""A figure with everything that belongs to it, and the error for a missing matplotlib."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mobilemoe.errors import MobileMoEError

if TYPE_CHECKING:
    from mobilemoe.page.canvas import Draw


@dataclass(frozen=True)
class Drawing:
    """A figure by name: how to draw it, what a screen reader says, and its caption (HTML)."""

    name: str
    words: str
    caption: str
    draw: Draw


@contextmanager
def needs_matplotlib() -> Iterator[None]:
    """Turn a missing matplotlib into the error that says how to get it.

    Raises:
        MobileMoEError: if the block imports matplotlib and it is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "matplotlib":
            raise
        raise MobileMoEError(
            "figures are drawn with matplotlib, which is not installed",
            hint="pip install 'mobilemoe[plots]'",
        ) from error
