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
    axes.annotate(
        f"read bandwidth: {bandwidth:.1f} GB/s",
        (low, bandwidth * low),
        (14, 22),
        textcoords="offset points",
        color=ROOF,
    )


def _draw_points(axes: Axes, points: list[dict[str, Any]]) -> None:
    seen = set()
    for point in points:
        row = point["row"]
        legend = f"{point['model']}, {row['kind']}"
        axes.plot(
            point["x"],
            point["y"],
            MARKERS[row["kind"]],
            color=point["colour"],
            ms=8,
            mec="white",
            label=None if legend in seen else legend,
            zorder=3,
        )
        seen.add(legend)
        depth = f" @ d{row['depth']}" if row["depth"] else ""
        name = f"{'pp' if row['kind'] == 'prefill' else 'tg'}{row['tokens']}{depth}"
        axes.annotate(
            f"{name}: {point['share']:.0%}",
            (point["x"], point["y"]),
            (9, -3),
            textcoords="offset points",
            fontsize=8,
            color=point["colour"],
        )


def _label(axes: Axes, document: dict[str, Any]) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("operational intensity: multiply-adds per byte that must be read")
    axes.set_ylabel("speed: GMAC/s")
    machine, threads = document["machine"], document["ceilings"]["threads"]
    axes.set_title(
        f"{document['model']['name']} under the roofs of {machine['cpu']}, {threads} threads\n"
        "labels: share of the roof that binds",
        loc="left",
        fontsize=10,
    )
    axes.grid(True, which="major", color="#e6e6e6", zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", frameon=False, fontsize=9)
