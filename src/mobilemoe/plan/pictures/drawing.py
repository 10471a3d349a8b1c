"""A figure with everything that belongs to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mobilemoe.page.canvas import Draw


@dataclass(frozen=True)
class Drawing:
    """A figure by name: how to draw it, what a screen reader says, and its caption (HTML)."""

    name: str
    words: str
    caption: str
    draw: Draw
