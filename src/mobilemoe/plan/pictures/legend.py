"""Legends as a row of swatches above a plot; it wraps where the figure is narrow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from mobilemoe.page.style import light
from mobilemoe.plan.pictures.axis import colour, experts_label

ROW = 19
_CHARACTER = 6.6  # pixels of a character at size 11, on the safe side


@dataclass(frozen=True)
class Key:
    """One entry: its words and how its swatch looks. `tint` is a colour, `mark` a line's point."""

    text: str
    tint: str
    kind: Literal["square", "line", "dashes", "dots", "dot", "ring", "hatch"] = "square"
    alpha: float = 1.0
    mark: str = ""


def expert_keys(experts: Sequence[float], kind: Literal["square", "line", "dot"]) -> list[Key]:
    """Return a key for each expert count."""
    return [Key(experts_label(each), colour(each), kind) for each in experts]


def legend_height(keys: Sequence[Key], width: float) -> float:
    """Return the pixels that `legend` takes."""
    return ROW * len(_rows(keys, width))


def legend(layer: Axes, keys: Sequence[Key], left: float, top: float, width: float) -> None:
    """Draw `keys` on a sheet from (`left`, `top`), in as many rows as `width` asks for."""
    for line, row in enumerate(_rows(keys, width)):
        x, y = left, top + ROW * line + ROW / 2
        for key in row:
            _swatch(layer, key, x, y)
            words: dict[str, Any] = {
                "fontsize": 11,
                "color": light("soft"),
                "va": "center_baseline",
            }
            layer.text(x + _room(key), y, key.text, **words)
            x += _wide(key)


def _room(key: Key) -> float:
    return 24.0 if key.kind in ("line", "dashes", "dots") else 17.0


def _wide(key: Key) -> float:
    return _room(key) + _CHARACTER * len(key.text) + 12


def _rows(keys: Sequence[Key], width: float) -> list[list[Key]]:
    rows: list[list[Key]] = []
    used = width + 1
    for key in keys:
        if used + _wide(key) - 12 > width:
            rows.append([])
            used = 0.0
        rows[-1].append(key)
        used += _wide(key)
    return rows


def _swatch(layer: Axes, key: Key, x: float, y: float) -> None:
    if key.kind in ("square", "hatch"):
        hatch = "/////" if key.kind == "hatch" else None
        look: dict[str, Any] = {
            "hatch": hatch,
            "edgecolor": light("ink"),
            "lw": 0,
            "alpha": key.alpha,
        }
        layer.add_patch(Rectangle((x, y - 6), 12, 12, facecolor=key.tint, **look))
    elif key.kind in ("dot", "ring"):
        inside = key.tint if key.kind == "dot" else light("paper")
        layer.plot(x + 6, y, "o", ms=7, mfc=inside, mec=key.tint, mew=1.6)
    else:
        style = {"line": "-", "dashes": (0, (4, 2.5)), "dots": (0, (1, 2))}[key.kind]
        layer.plot([x, x + 18], [y, y], color=key.tint, lw=2, ls=style)
        if key.mark:
            layer.plot(x + 9, y, key.mark, ms=6, color=key.tint)
