"""Figures of training: the loss over tokens, and the held-out loss around each stage."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from mobilemoe.demo.schema import Measured, Stage
from mobilemoe.page.canvas import NARROW, label, new_figure, panel, responsive, sheet, spread
from mobilemoe.page.curves import LOSS_TICKS, smoothed
from mobilemoe.page.markup import finite, finites, short_count
from mobilemoe.page.style import light

Segment = tuple[float, float]


def loss_figure(stages: Sequence[Stage]) -> str:
    """Return the training loss over all tokens, one band for each stage."""
    words = "Training loss in nats per token over tokens seen, one band for each stage"
    return responsive("loss", words, lambda width: _draw_loss(stages, width))


def heldout_figure(stages: Sequence[Stage], domains: Sequence[str]) -> str:
    """Return the held-out loss around each stage, one panel for each domain."""
    words = "Held-out loss before and after each stage, one panel for each domain"
    return responsive("heldout", words, lambda width: _draw_heldout(stages, domains, width))


def curve_points(stage: Stage) -> tuple[list[float], list[float]]:
    """Return the measured points of a stage's curve: tokens and losses."""
    pairs = zip(stage["curve"]["tokens"], stage["curve"]["loss"], strict=True)
    kept = [(tokens, loss) for tokens, loss in pairs if finite(loss) is not None and loss]
    return [tokens for tokens, _ in kept], [loss for _, loss in kept]


def _draw_loss(stages: Sequence[Stage], width: int) -> Figure:
    height = 380 if width > NARROW else 330
    left, top, bottom = 34, 66, 44
    figure = new_figure(width, height)
    axes = panel(figure, left, top, width - left - 6, height - top - bottom)
    total = max(1, sum(stage["tokens"] for stage in stages))
    axes.set_xlim(0, total)
    axes.set_yscale("log")
    start = 0.0
    for index, stage in enumerate(stages):
        if index % 2 == 0:
            axes.axvspan(start, start + stage["tokens"], color=light("band"), lw=0, zorder=0)
        tokens, losses = curve_points(stage)
        at = [start + token for token in tokens]
        axes.plot(at, losses, color=light("moe-soft"), lw=1)
        dot = "o" if len(at) == 1 else ""
        axes.plot(at, smoothed(losses), color=light("moe"), lw=2, marker=dot)
        start += stage["tokens"]
    _loss_axes(axes, stages, width)
    _stage_labels(sheet(figure), stages, (left, width - 6), top)
    return figure


def _loss_axes(axes: Axes, stages: Sequence[Stage], width: int) -> None:
    losses = [loss for stage in stages for loss in curve_points(stage)[1] if loss > 0]
    low, high = (min(losses) * 0.94, max(losses) * 1.06) if losses else (1.0, 10.0)
    axes.set_ylim(low, high)
    ticks = [tick for tick in LOSS_TICKS if low <= tick <= high]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.yaxis.set_minor_locator(NullLocator())
    axes.grid(axis="y")
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(8 if width > NARROW else 4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda tokens, _: short_count(tokens)))
    axes.set_xlabel("tokens seen")


def _stage_labels(layer: Axes, stages: Sequence[Stage], across: Segment, top: float) -> None:
    """Name each band above the plot; labels of narrow bands move aside and keep a thin line."""
    total = max(1, sum(stage["tokens"] for stage in stages))
    scale = (across[1] - across[0]) / total
    centres, start = [], across[0]
    for stage in stages:
        centres.append(start + scale * stage["tokens"] / 2)
        start += scale * stage["tokens"]
    placed = spread(centres, [78.0] * len(stages), across[0] - 4, across[1] + 6)
    for stage, centre, at in zip(stages, centres, placed, strict=True):
        losses = smoothed(curve_points(stage)[1])
        text = f"{losses[0]:.2f} → {losses[-1]:.2f}" if losses else "not measured"
        layer.text(at, 16, stage["name"], ha="center", fontsize=12, weight="bold")
        layer.text(at, 33, text, ha="center", fontsize=11, color=light("soft"))
        layer.plot([at, centre], [40, top - 4], color=light("mute"), lw=1)
        layer.plot([centre, centre], [top - 4, top + 4], color=light("mute"), lw=1)


def _draw_heldout(stages: Sequence[Stage], domains: Sequence[str], width: int) -> Figure:
    columns = min(len(domains), 4 if width > NARROW else 2)
    rows = -(-len(domains) // columns)
    gap, tall, row_height = 18, 168, 232
    wide = (width - gap * (columns - 1)) / columns
    figure = new_figure(width, rows * row_height - 10)
    ranges = [_range(stages, domain) for domain in domains]
    span = 1.5 * max((high - low for low, high in ranges), default=0.0) or 0.1
    for index, domain in enumerate(domains):
        row, column = divmod(index, columns)
        axes = panel(figure, column * (wide + gap), row * row_height + 30, wide, tall)
        axes.set_title(domain, loc="left", fontsize=12.5, fontweight="bold", pad=9, x=0.01)
        middle = sum(ranges[index]) / 2
        axes.set_ylim(middle - span / 2, middle + span / 2)
        _heldout_panel(axes, stages, domain)
    return figure


def _range(stages: Sequence[Stage], domain: str) -> Segment:
    """Return the losses to show: all but that of the untrained model, which is far away."""
    values: list[Measured] = [stage["heldout_after"].get(domain) for stage in stages]
    values += [stage["heldout_before"].get(domain) for stage in stages[1:]]
    known = finites(values)
    return (min(known), max(known)) if known else (0.0, 0.0)


def _heldout_panel(axes: Axes, stages: Sequence[Stage], domain: str) -> None:
    axes.set_xlim(-0.02, len(stages) + 0.14)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.spines["bottom"].set_color(light("rule"))
    ticks = [index + 0.5 for index in range(len(stages))]
    axes.set_xticks(ticks, [stage["name"].removesuffix("train")[:5] for stage in stages])
    previous = None
    for index, stage in enumerate(stages):
        if domain in stage["for_domains"]:
            axes.axvspan(index, index + 1, color=light("moe-tint"), lw=0, zorder=0)
        before = finite(stage["heldout_before"].get(domain))
        after = finite(stage["heldout_after"].get(domain))
        _heldout_segment(axes, index, before, after, domain in stage["for_domains"])
        if index and before is not None and previous is not None and abs(before - previous) > 1e-6:
            axes.plot(index, before, "o", ms=5, mfc=light("paper"), mec=light("mute"), zorder=4)
        previous = after
    if not finites(stage["heldout_after"].get(domain) for stage in stages):
        look = {"ha": "center", "style": "italic", "color": light("soft")}
        label(axes, "not measured", (0.5, 0.5), (0, 0), xycoords="axes fraction", **look)


def _heldout_segment(
    axes: Axes, index: int, before: float | None, after: float | None, meant: bool
) -> None:
    colour = light("moe" if meant else "mute")
    if before is not None and after is not None:
        axes.plot([index, index + 1], [before, after], color=colour, lw=2.2 if meant else 1.5)
        top = axes.get_ylim()[1]
        if index == 0 and before > top:
            text = f"from\n{before:.2f}"
            label(axes, text, (0, top), (4, 0), va="top", fontsize=10.5, color=light("soft"))
    if after is None:
        return
    axes.plot(index + 1, after, "o", ms=5.5, color=colour, zorder=5, clip_on=False)
    rising = before is not None and after > before
    shift, side = ((5, 7), "bottom") if rising else ((1, -7), "top")
    label(axes, f"{after:.2f}", (index + 1, after), shift, ha="right", va=side, fontsize=10.5)
