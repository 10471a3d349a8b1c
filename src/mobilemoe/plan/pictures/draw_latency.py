"""Milliseconds of a request: the wait for the first token, then the answer, as bars."""

from __future__ import annotations

from matplotlib.figure import Figure

from mobilemoe.page.canvas import NARROW, Draw, new_figure, panel, sheet
from mobilemoe.page.markup import count, escape, significant
from mobilemoe.page.style import light
from mobilemoe.plan.device import RequestCost
from mobilemoe.plan.pictures.axis import linear_scale
from mobilemoe.plan.pictures.drawing import Drawing
from mobilemoe.plan.pictures.latency import Latencies, decode_ms
from mobilemoe.plan.pictures.legend import ROW, Key, legend


def latency_drawing(found: Latencies) -> Drawing:
    """Return the figure of all requests."""
    caption = (
        f"One request on {escape(found.device)}: reading the prompt, then the rest of the answer "
        "token by token. Predicted from the constants of the profile, listed below."
    )
    return Drawing("latency", latency_words(found), caption, latency_figure(found))


def latency_words(found: Latencies) -> str:
    """Return the time of each request, in a sentence."""
    parts = [
        f"{count(cost.request.prompt_tokens)} + {count(cost.request.new_tokens)} tokens "
        f"{seconds_text(cost.total_ms)}, the first after {seconds_text(cost.ttft_ms)}"
        for cost in found.costs
    ]
    return f"Latency per request on {found.device}: {'; '.join(parts)}."


def seconds_text(milliseconds: float) -> str:
    """Return a time as 850 ms or 3.20 s."""
    if milliseconds < 1000:
        return f"{milliseconds:.3g} ms"
    return significant(milliseconds / 1000, "s")


def latency_figure(found: Latencies) -> Draw:
    """Return the drawing: one bar for each request, in two parts."""
    return lambda width: _draw(found, width)


def _draw(found: Latencies, width: int) -> Figure:
    keys = [
        Key("prompt: time to first token", light("moe")),
        Key("answer", light("moe-soft")),
    ]
    step, head, foot = 38, ROW + 12, 44
    left = 132 if width > NARROW else 92
    tall = step * max(1, len(found.costs))
    figure = new_figure(width, head + tall + foot)
    axes = panel(figure, left, head, width - left - 74, tall)
    legend(sheet(figure), keys, 0, 0, width)
    longest = max((cost.total_ms for cost in found.costs), default=1.0) / 1000
    axes.set_xlim(0, longest)
    axes.set_ylim(len(found.costs) - 0.5 if found.costs else 0.5, -0.5)
    axes.set_yticks(range(len(found.costs)), [_name(c, width) for c in found.costs])
    axes.tick_params(axis="y", labelcolor=light("ink"))
    linear_scale(axes, "x", ticks=6 if width > NARROW else 4, form=lambda v: f"{v:g}")
    axes.set_xlabel("seconds")
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    for index, cost in enumerate(found.costs):
        first, rest = cost.ttft_ms / 1000, decode_ms(cost) / 1000
        axes.barh(index, first, height=0.56, color=light("moe"), lw=0)
        axes.barh(index, rest, left=first, height=0.56, color=light("moe-soft"), lw=0)
        axes.annotate(
            seconds_text(cost.total_ms),
            (first + rest, index),
            xytext=(7, 0),
            textcoords="offset points",
            va="center_baseline",
            fontsize=11,
            annotation_clip=False,
        )
    return figure


def _name(cost: RequestCost, width: int) -> str:
    request = cost.request
    unit = " tokens" if width > NARROW else ""
    return f"{request.prompt_tokens:,} + {request.new_tokens:,}{unit}"
