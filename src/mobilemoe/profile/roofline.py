"""The rows of a benchmark under the machine's two roofs, as a picture.

Horizontal: multiply-adds per byte that a row must read. Vertical: multiply-adds per second. Left
of the ridge the read bandwidth is the roof, right of it the int8 peak.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilemoe.atomic import atomic_file
from mobilemoe.errors import MobileMoEError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0b6e4f", "#c8553d")  # the model, and what it is held against
MARKERS = {"prefill": "o", "decode": "s"}
ROOF, FAINT = "#333333", "#999999"
LABEL_WIDTH, LABEL_HEIGHT = 3.0, 1.15  # of a label, as factors on the logarithmic axes


def require_matplotlib() -> None:
    """Check that matplotlib is installed.

    Raises:
        MobileMoEError: if it is not.
    """
    if find_spec("matplotlib") is None:
        raise MobileMoEError(
            "a picture needs matplotlib, which is not installed",
            hint='pip install "mobilemoe[plots]"',
        )


def draw_roofline(document: dict[str, Any], path: Path) -> None:
    """Draw the rows of a benchmark document to `path`; its ending names the format.

    Raises:
        MobileMoEError: if matplotlib is missing or the disk refuses.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.5, 5.6), layout="constrained")
    axes = figure.add_subplot()
    points = list(_points(document))
    ridge = document["ceilings"]["int8_gmac_s"] / document["ceilings"]["read_gb_s"]
    intensities = [point["x"] for point in points]
    low, high = min([*intensities, ridge]) / 3, max([*intensities, ridge]) * 4
    _draw_roofs(axes, document["ceilings"], low, high)
    _draw_points(axes, points)
    _label(axes, document)
    axes.set_xlim(low, high)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    with atomic_file(path) as file:
        figure.savefig(file, format=path.suffix.lstrip("."), dpi=160)


def _points(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Return each row as a point; rows of the largest thread count, whose roofs are drawn."""
    parts = [document] if document["versus"] is None else [document, document["versus"]]
    return [
        {
            "x": row["macs_per_byte"],
            "y": 1e-9 * row["macs_per_token"] * row["tok_s"],
            "share": row["share_of_ceiling"],
            "row": row,
            "colour": COLOURS[index],
            "model": part["model"]["name"],
        }
        for index, part in enumerate(parts)
        for row in part["rows"]
        if row["threads"] == document["ceilings"]["threads"]
    ]


def _draw_roofs(axes: Axes, ceilings: dict[str, Any], low: float, high: float) -> None:
    bandwidth = ceilings["read_gb_s"]
    for name, faint in (("int8", False), ("fp32", True)):
        peak = ceilings[f"{name}_gmac_s"]
        ridge = peak / bandwidth
        style: dict[str, Any] = {"color": FAINT if faint else ROOF, "lw": 1.2 if faint else 2.0}
        start = ridge if faint else low
        heights = [bandwidth * start, peak, peak]
        axes.plot([start, ridge, high], heights, ls="--" if faint else "-", zorder=1, **style)
        text = f"{name} peak: {peak:,.0f} GMAC/s ({ceilings[f'{name}_instructions']})"
        axes.annotate(
            text,
            (high, peak),
            (-6, 4),
            textcoords="offset points",
            ha="right",
            color=style["color"],
        )
    at = (2 * low, 2 * bandwidth * low)
    text = f"read bandwidth: {bandwidth:.1f} GB/s"
    axes.annotate(text, at, (12, -5), textcoords="offset points", color=ROOF)


def _draw_points(axes: Axes, points: list[dict[str, Any]]) -> None:
    seen = set()
    for point in points:
        row = point["row"]
        legend = f"{point['model']}, {row['kind']}"
        label = None if legend in seen else legend
        marker: dict[str, Any] = {"marker": MARKERS[row["kind"]], "ms": 8, "mec": "white", "ls": ""}
        axes.plot(point["x"], point["y"], color=point["colour"], label=label, zorder=3, **marker)
        seen.add(legend)
        depth = f" @ d{row['depth']}" if row["depth"] else ""
        name = f"{'pp' if row['kind'] == 'prefill' else 'tg'}{row['tokens']}{depth}"
        left = _crowded(point, points)
        axes.annotate(
            f"{name}: {point['share']:.0%}",
            (point["x"], point["y"]),
            (-9 if left else 9, -3),
            textcoords="offset points",
            ha="right" if left else "left",
            fontsize=8,
            color=point["colour"],
        )


def _crowded(point: dict[str, Any], points: list[dict[str, Any]]) -> bool:
    """Whether another point stands where the label would go, to the right of `point`."""
    return any(
        1 < other["x"] / point["x"] < LABEL_WIDTH
        and 1 / LABEL_HEIGHT < other["y"] / point["y"] < LABEL_HEIGHT
        for other in points
    )


def _label(axes: Axes, document: dict[str, Any]) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("operational intensity: multiply-adds per byte that must be read")
    axes.set_ylabel("speed: GMAC/s")
    machine, threads = document["machine"], document["ceilings"]["threads"]
    roofs = f"the roofs of {machine['cpu']}, {threads} thread{'s' * (threads > 1)}"
    title = f"{document['model']['name']} under {roofs}\nlabels: share of the roof that binds"
    axes.set_title(title, loc="left", fontsize=10)
    axes.grid(True, which="major", color="#e6e6e6", zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
