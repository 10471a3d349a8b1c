"""Figures of what runs on the device: quantisation, seeds and speed, all as dots on a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from mobilemoe.demo.schema import PerplexityRow, SeedRow, SpeedModel
from mobilemoe.page.canvas import NARROW, label, new_figure, panel, responsive, spread
from mobilemoe.page.markup import MINUS, finite, finites, short_count, significant
from mobilemoe.page.style import light

# Form of the model: colour of its dot, and whether the dot is filled.
_FORMS: Mapping[str, tuple[str, bool]] = {
    "BF16": ("ink", True),
    "PTQ INT4": ("mute", True),
    "QAT INT4": ("moe", True),
    "control BF16": ("ink", False),
    "control PTQ INT4": ("mute", False),
}
_PLATE: Mapping[str, Any] = {"facecolor": light("paper"), "edgecolor": "none", "pad": 1}
_UNKNOWN: Mapping[str, Any] = {
    "style": "italic",
    "color": light("soft"),
    "va": "center_baseline",
}
FAR = 1.0  # a perplexity that more than doubles is drawn as an arrow at the edge
SPEEDS = (
    ("ttft_ms", "Time to first token, ms", "lower is better"),
    ("prefill_tok_s", "Prefill, tokens/s", "higher is better"),
    ("decode_tok_s", "Decode, tokens/s", "higher is better"),
    ("peak_rss_mib", "Peak memory, MiB", "lower is better"),
)


def perplexity_figure(rows: Sequence[PerplexityRow], domains: Sequence[str]) -> str:
    """Return the change of perplexity against BF16, one panel for each domain."""
    words = "Change of held-out perplexity against BF16, for each domain and form of the model"
    return responsive("perplexity", words, lambda width: _draw_perplexity(rows, domains, width))


def seeds_figure(seeds: Sequence[SeedRow]) -> str:
    """Return the mean perplexity of each seed: QAT against the two controls."""
    words = "Mean perplexity for each seed: control in BF16 and INT4, and QAT in INT4"
    return responsive("seeds", words, lambda width: _draw_seeds(seeds, width))


def speed_figure(models: Sequence[SpeedModel]) -> str:
    """Return four measures of speed and memory: every round as a dot, the median as a line."""
    words = "Speed and memory of the mixture of experts and its dense twin, every round"
    return responsive("speed", words, lambda width: _draw_speed(models, width))


def speed_values(model: SpeedModel, key: str) -> list[float]:
    """Return the measured rounds of one measure (peak memory has one)."""
    if key == "peak_rss_mib":
        return finites([model["peak_rss_mib"]])
    rounds = {
        "ttft_ms": model["ttft_ms"],
        "prefill_tok_s": model["prefill_tok_s"],
        "decode_tok_s": model["decode_tok_s"],
    }
    return finites(rounds[key])


def relative(rows: Sequence[PerplexityRow], domain: str) -> dict[str, float]:
    """Return each row's perplexity in `domain` as a change against BF16 (0.1 is +10 %)."""
    values = {row["name"]: finite(row["perplexity"].get(domain)) for row in rows}
    base = values.get("BF16")
    if not base:
        return {}
    return {name: value / base - 1 for name, value in values.items() if value is not None}


def _draw_perplexity(rows: Sequence[PerplexityRow], domains: Sequence[str], width: int) -> Figure:
    columns = min(len(domains), 5 if width > NARROW else 1)
    bands = -(-len(domains) // columns)
    left, gap, step = (118, 16, 26) if width > NARROW else (112, 16, 21)
    tall = step * len(rows)
    head, foot = 30, 30 if width > NARROW else 26
    wide = (width - left - 16 - gap * (columns - 1)) / columns
    figure = new_figure(width, bands * (head + tall + foot))
    every = [change for domain in domains for change in relative(rows, domain).values()]
    low, high = min([0.0, *every]), min(FAR, max([0.01, *every]))
    margin = high - low
    reach = (low - 0.16 * margin, high + (0.62 if width > NARROW else 0.3) * margin)
    for index, domain in enumerate(domains):
        band, column = divmod(index, columns)
        top = band * (head + tall + foot) + head
        axes = panel(figure, left + column * (wide + gap), top, wide, tall)
        axes.set_xlim(*reach)
        _perplexity_panel(axes, rows, domain, named=column == 0)
    return figure


def _perplexity_panel(axes: Axes, rows: Sequence[PerplexityRow], domain: str, named: bool) -> None:
    _row_axes(axes, [row["name"] for row in rows], named)
    axes.set_title(domain, loc="left", fontsize=12.5, fontweight="bold", pad=8, x=0)
    axes.axvline(0, color=light("mute"), lw=1, zorder=1)
    axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.xaxis.set_major_formatter(FuncFormatter(_per_cent))
    changes = relative(rows, domain)
    for index, row in enumerate(rows):
        if row["name"] not in changes:
            label(axes, "not measured", (0, index), (8, 0), **_UNKNOWN)
            continue
        at = min(changes[row["name"]], FAR)
        _dot(axes, at, index, row["name"], beyond=changes[row["name"]] > FAR)
        value = row["perplexity"][domain] or 0.0
        text = short_count(value) if value >= 1e5 else significant(value)
        label(axes, text, (at, index), (9, 0), va="center_baseline", bbox=_PLATE)


def _per_cent(value: float, _: object) -> str:
    return f"{100 * value:+.3g}%".replace("-", MINUS) if abs(value) > 1e-12 else "0%"


def _row_axes(axes: Axes, names: Sequence[str], named: bool) -> None:
    """Prepare horizontal rows, the first on top, with a hairline through each."""
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), names if named else [""] * len(names), fontsize=11.5)
    axes.tick_params(axis="y", labelcolor=light("ink"))
    axes.grid(axis="y")
    axes.spines["left"].set_visible(False)
    axes.spines["bottom"].set_visible(False)


def _dot(axes: Axes, x: float, y: float, form: str, beyond: bool = False) -> None:
    name, filled = _FORMS.get(form, ("mute", True))
    inside = light(name if filled else "paper")
    mark = ">" if beyond else "o"
    axes.plot(x, y, mark, ms=8, mfc=inside, mec=light(name), mew=1.8, zorder=4, clip_on=False)


def _draw_seeds(seeds: Sequence[SeedRow], width: int) -> Figure:
    step, head, foot, left = 34, 26, 42, 62
    figure = new_figure(width, head + step * len(seeds) + foot)
    axes = panel(figure, left, head, width - left - 20, step * len(seeds))
    _row_axes(axes, [f"seed {row['seed']}" for row in seeds], named=True)
    values = finites(value for row in seeds for value in _seed_values(row).values())
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    margin = (high - low) or 1.0
    axes.set_xlim(low - 0.12 * margin, high + 0.16 * margin)
    axes.xaxis.set_major_locator(MaxNLocator(6 if width > NARROW else 4))
    axes.set_xlabel("mean held-out perplexity")
    for index, row in enumerate(seeds):
        _seed_row(axes, index, row)
    _seed_labels(axes, seeds[0], width - left - 20)
    return figure


def _seed_values(row: SeedRow) -> dict[str, float | None]:
    return {
        "control BF16": finite(row["control_bf16"]),
        "QAT INT4": finite(row["qat"]),
        "control PTQ INT4": finite(row["control_ptq"]),
    }


def _seed_row(axes: Axes, index: int, row: SeedRow) -> None:
    values = _seed_values(row)
    qat, control = values["QAT INT4"], values["control PTQ INT4"]
    if qat is not None and control is not None:
        axes.plot([control, qat], [index, index], color=light("moe-soft"), lw=4, zorder=3)
    for form, value in values.items():
        if value is not None:
            _dot(axes, value, index, form)


def _seed_labels(axes: Axes, row: SeedRow, width: float) -> None:
    """Name the dots of the first row; names of close dots move apart."""
    known = [(value, form) for form, value in _seed_values(row).items() if value is not None]
    low, high = axes.get_xlim()
    scale = width / (high - low)
    centres = [scale * (value - low) for value, _ in sorted(known)]
    widths = [8.0 + 6.6 * len(form.removesuffix(" INT4")) for _, form in sorted(known)]
    placed = spread(centres, widths, -20.0, width + 20)
    for (value, form), centre, at in zip(sorted(known), centres, placed, strict=True):
        colour = light("moe" if form.startswith("QAT") else "ink")
        words = form.removesuffix(" INT4")
        label(axes, words, (value, 0), (at - centre, 11), ha="center", color=colour)


def _draw_speed(models: Sequence[SpeedModel], width: int) -> Figure:
    columns = 2 if width > NARROW else 1
    left, gap, step, head, foot = 78, 44, 44, 52, 32
    wide = (width - columns * left - gap * (columns - 1) - 28) / columns
    tall = step * len(models)
    figure = new_figure(width, (len(SPEEDS) // columns) * (head + tall + foot))
    for index, (key, title, better) in enumerate(SPEEDS):
        band, column = divmod(index, columns)
        across = column * (wide + gap + left) + left
        axes = panel(figure, across, band * (head + tall + foot) + head, wide, tall)
        _speed_panel(axes, models, key)
        corner = (-left, tall)
        look = {"xycoords": "axes pixels", "fontsize": 12.5, "weight": "bold"}
        label(axes, title, corner, (0, 26), **look)
        label(axes, better, corner, (0, 10), xycoords="axes pixels", color=light("soft"))
    return figure


def _speed_panel(axes: Axes, models: Sequence[SpeedModel], key: str) -> None:
    _row_axes(axes, [model["name"] for model in models], named=True)
    everything = [value for model in models for value in speed_values(model, key)]
    axes.set_xlim(0, 1.22 * max(everything, default=1.0))
    axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    for index, model in enumerate(models):
        name = "moe" if index == 0 else "dense"
        axes.get_yticklabels()[index].set_color(light(name))
        values = speed_values(model, key)
        if not values:
            label(axes, "not measured", (0, index), (8, 0), **_UNKNOWN)
            continue
        middle = median(values)
        axes.barh(index, middle, height=0.34, color=light(f"{name}-soft"), lw=0, zorder=2)
        axes.plot([middle, middle], [index - 0.3, index + 0.3], color=light(name), lw=2.5, zorder=4)
        if len(values) > 1:
            axes.plot(
                values,
                [index] * len(values),
                "o",
                ms=6,
                mfc="none",
                mec=light(name),
                mew=1.2,
                zorder=5,
                clip_on=False,
            )
        at = (max(values), index)
        look = {"weight": "bold", "color": light(name), "va": "center_baseline"}
        label(axes, significant(middle), at, (9, 0), **look)
