"""The load of every expert over time: a heat map for each layer, diverging around the mean.

E experts, X columns of equally many tokens. A map is a small image, one pixel a cell, so that
a page of 20 layers with 60 experts stays small; each theme has its own image.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.image import imsave
from numpy.typing import NDArray

from mobilemoe.page.canvas import NARROW, new_figure, panel, sheet
from mobilemoe.page.markup import TIMES, escape, short_count
from mobilemoe.page.style import PALETTE, light
from mobilemoe.train.report.record import RunRecord, StageRecord

COLUMNS = 120
FULL = 2.0  # of log2: the strongest colours stand for a quarter and for four times the mean
# log2 of the load over its layer's mean, and the colour there; between them it is mixed.
ANCHORS = (
    (-2.0, "heat-less-3"),
    (-1.0, "heat-less-2"),
    (-0.5, "heat-less-1"),
    (0.0, "heat-even"),
    (0.5, "heat-more-1"),
    (1.0, "heat-more-2"),
    (2.0, "heat-more-3"),
)
KEYS = (
    ("heat-less-3", "¼"),
    ("heat-less-2", "½"),
    ("heat-even", "1"),
    ("heat-more-2", "2"),
    ("heat-more-3", "4"),
)
FOOT = (
    "Experts down, tokens across. Blue: more than the layer's mean (strongest: 4 times), "
    "brown: less (strongest: a quarter)."
)
RATIO = NDArray[np.float64]


@dataclass(frozen=True)
class LayerLoad:
    """One layer: loads over the layer's mean [E, X], NaN where nothing was counted."""

    number: int
    ratio_EX: RATIO

    @cached_property
    def worst(self) -> tuple[int, float, float]:
        """The fullest expert at the end, its load then, and the fullest load at the start."""
        known = np.flatnonzero(~np.isnan(self.ratio_EX).any(axis=0))
        last_E, first_E = self.ratio_EX[:, known[-1]], self.ratio_EX[:, known[0]]
        return int(last_E.argmax()), float(last_E.max()), float(first_E.max())


def layer_loads(run: RunRecord) -> list[LayerLoad]:
    """Return the loads of every layer over the whole run; empty if none were counted."""
    spans = [span for start, stage in run.starts() for span in _spans(start, stage)]
    layers = max((len(span.counts) for span in spans), default=0)
    experts = max((len(layer) for span in spans for layer in span.counts), default=0)
    columns = max(1, min(COLUMNS, len(spans)))
    counts_LEX = np.zeros((layers, experts, columns))
    for span in spans:
        first, last = span.columns(columns / run.tokens)
        for number, layer in enumerate(span.counts):
            counts_LEX[number, : len(layer), first:last] += np.asarray(layer, float)[:, None]
    known = [number for number in range(layers) if counts_LEX[number].any()]
    return [LayerLoad(number, _over_mean(counts_LEX[number])) for number in known]


def _over_mean(counts_EX: RATIO) -> RATIO:
    mean_1X = counts_EX.mean(axis=0, keepdims=True)
    nothing_EX = np.full_like(counts_EX, np.nan)
    ratio_EX: RATIO = np.divide(counts_EX, mean_1X, out=nothing_EX, where=mean_1X > 0)
    return ratio_EX


@dataclass(frozen=True)
class _Span:
    """Counts of the tokens from `low` to `high`, in a stage from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    counts: tuple[tuple[int, ...], ...]

    def columns(self, scale: float) -> tuple[int, int]:
        """Return the columns of `scale` a token that the span touches, none of another stage.

        A column belongs to the stage in which its middle lies.
        """
        first = max(math.floor(self.low * scale + 1e-9), math.ceil(self.start * scale - 0.5))
        last = min(math.ceil(self.high * scale - 1e-9), math.ceil(self.end * scale - 0.5))
        return first, max(first, last)


def _spans(start: float, stage: StageRecord) -> Iterator[_Span]:
    """Yield the counts of a stage; the last one stands for the tokens not counted yet, too."""
    low, end = start, start + stage.tokens
    for loads in stage.loads:
        high = end if loads is stage.loads[-1] else min(start + stage.at(loads.step), end)
        yield _Span(min(low, high), high, start, end, loads.tokens_per_expert)
        low = high


def colours(ratio_EX: RATIO, theme: int) -> NDArray[np.uint8]:
    """Return the colours [E, X, 3] of loads over their mean; `theme` 0 is light, 1 dark."""
    with np.errstate(divide="ignore"):
        log_EX = np.clip(np.log2(ratio_EX), -FULL, FULL)
    at = [place for place, _ in ANCHORS]
    palette = np.array([_rgb(PALETTE[name][theme]) for _, name in ANCHORS], float)
    mixed = [np.interp(log_EX, at, palette[:, channel]) for channel in range(3)]
    rgb_EX3 = np.stack(mixed, axis=-1)
    rgb_EX3[np.isnan(log_EX)] = _rgb(PALETTE["paper"][theme])
    return rgb_EX3.round().astype(np.uint8)


def _rgb(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[place : place + 2], 16) for place in (1, 3, 5))


def heat_maps(run: RunRecord, layers: list[LayerLoad]) -> str:
    """Return the maps of all layers as HTML, with the key of their colours."""
    maps = "".join(_heat_map(run, layer) for layer in layers)
    keys = "".join(
        f'<li><i style="background:var(--{name})"></i>{value}{TIMES} the mean</li>'
        for name, value in KEYS
    )
    return f'<div class="heats">{maps}</div><ul class="keys">{keys}</ul>'


def _heat_map(run: RunRecord, layer: LayerLoad) -> str:
    expert, last, first = layer.worst
    experts = layer.ratio_EX.shape[0]
    tall = min(180, max(72, 4 * experts))
    words = f"Load of {experts} experts of layer {layer.number} over time, expert 0 at the top"
    lines = "".join(
        f'<i style="left:{100 * start / run.tokens:.2f}%"></i>' for start, _ in run.starts()[1:]
    )
    dark, bright = (_image(colours(layer.ratio_EX, theme)) for theme in (1, 0))
    return (
        f'<div class="heat"><p><b>layer {layer.number}</b> fullest: {first:.2f}{TIMES} → '
        f"{last:.2f}{TIMES} (expert {expert})</p>"
        f'<div style="height:{tall}px"><picture><source media="(prefers-color-scheme:dark)" '
        f'srcset="{dark}"><img alt="{escape(words)}" src="{bright}"></picture>{lines}</div>'
        f"<p><span>0</span><span>{short_count(run.tokens)} tokens</span></p></div>"
    )


def _image(rgb_EX3: NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    plain: dict[str, Any] = {"Software": None}
    imsave(buffer, rgb_EX3, format="png", metadata=plain)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def draw_heat(run: RunRecord, layers: list[LayerLoad], width: int) -> Figure:
    """Draw the maps of all layers in light colours, for a file."""
    columns = 2 if width > NARROW and len(layers) > 1 else 1
    rows = -(-len(layers) // columns)
    left, above, below, gap = 44, 26, 24, 8
    tall = min(180, max(72, 4 * layers[0].ratio_EX.shape[0]))
    cell = (width - gap * (columns - 1)) / columns
    height = rows * (above + tall + below) + 26
    figure = new_figure(width, height)
    sheet(figure).text(left, height - 6, FOOT, fontsize=11, color=light("soft"))
    for index, layer in enumerate(layers):
        row, column = divmod(index, columns)
        place = (column * (cell + gap) + left, row * (above + tall + below) + above)
        axes = panel(figure, *place, cell - left - 10, tall)
        extent = (0, run.tokens, layer.ratio_EX.shape[0], 0)
        axes.imshow(colours(layer.ratio_EX, 0), aspect="auto", extent=extent, interpolation="none")
        axes.set_title(f"layer {layer.number}", loc="left", fontsize=12, weight="bold", pad=5)
        axes.set_xticks([0, run.tokens], ["0", short_count(run.tokens)])
        axes.get_xticklabels()[-1].set_horizontalalignment("right")
        axes.set_yticks([0.5, extent[2] - 0.5], ["0", f"{extent[2] - 1}"])
        for start, _ in run.starts()[1:]:
            axes.axvline(start, color=light("paper"), lw=1.5)
        for side in ("left", "bottom"):
            axes.spines[side].set_visible(False)
    return figure
