"""The pieces of the report: the schema's check, number formats, layout and derived values."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_example import synthetic_report

from mobilemoe.config import ModelConfig
from mobilemoe.demo.figures_device import relative
from mobilemoe.demo.figures_model import expert_order, heat_class, parts
from mobilemoe.demo.validate import validate
from mobilemoe.errors import MobileMoEError
from mobilemoe.page import markup
from mobilemoe.page.canvas import spread
from mobilemoe.page.curves import smoothed
from mobilemoe.page.style import PALETTE


def test_the_example_is_valid() -> None:
    report = synthetic_report()
    assert validate(report) == report


def _drop(*path: str | int) -> Callable[[Any], None]:
    def change(report: Any) -> None:
        for key in path[:-1]:
            report = report[key]
        del report[path[-1]]

    return change


def _set(value: Any, *path: str | int) -> Callable[[Any], None]:
    def change(report: Any) -> None:
        for key in path[:-1]:
            report = report[key]
        report[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set(2, "schema"), "schema is 2; allowed: 1"),
        (_set(True, "schema"), "schema is True"),
        (_drop("schema"), "schema is None"),
        (_drop("design"), "report: missing key 'design'"),
        (_drop("design", "chosen", "vocab_size"), "report.design.chosen: missing key 'vocab_size'"),
        (_drop("stages", 2, "curve"), r"report.stages\[2\]: missing key 'curve'"),
        (_set({}, "quantisation"), "report: unknown key 'quantisation'"),
        (_set("7", "seed"), "report.seed is '7'; allowed: a value of type int"),
        (_set(True, "seed"), "report.seed is True"),
        (_set("fast", "speed", "models", 0, "ttft_ms"), r"models\[0\].ttft_ms is 'fast'"),
        (_set("x", "data", "domains", "code", "bytes"), "report.data.domains.code.bytes is 'x'"),
        (_set("drop", "stages", 0, "dispatch"), "'drop-and-pad' or 'dropless'"),
        (_set(None, "design"), "report.design is None"),
        (_set([1.0], "stages", 0, "curve", "tokens"), "as many of each"),
        (_set([[[0.5, 0.5]]], "experts", "share"), r"share\[0\] is '1 rows'; allowed: 3"),
        (_set([[[1.0], [0.5, 0.5], [1.0]]], "experts", "share"), "one share for each expert"),
    ],
)
def test_rejects_bad_report(change: Callable[[Any], None], message: str) -> None:
    report = synthetic_report()
    change(report)
    with pytest.raises(MobileMoEError, match=message):
        validate(report)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [([0.0, 9e9], "counted from the start of the stage"), ([5.0, 4.0], "never fall")],
)
def test_rejects_bad_curve(tokens: list[float], message: str) -> None:
    report = synthetic_report()
    report["stages"][1]["curve"] = {"tokens": tokens, "loss": [3.0, 2.0]}
    with pytest.raises(MobileMoEError, match=message):
        validate(report)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (markup.count(1234567), "1,234,567"),
        (markup.count(-5), "\u22125"),
        (markup.significant(0.1234), "0.123"),
        (markup.significant(12.345), "12.3"),
        (markup.significant(1234.5), "1,234"),
        (markup.change(-0.125, 3), "\u22120.125"),
        (markup.change(0.0), "+0.00"),
        (markup.percent(0.0123, 2), "1.23\u202f%"),
        (markup.megabytes(3_155_200), "3.16\u202fMB"),
        (markup.megabytes(999), "999\u202fbytes"),
        (markup.scientific(3.1e-7), '<span class="nb">3.1 \u00d7 10<sup>\u22127</sup></span>'),
        (markup.scientific(0.0), "0"),
        (markup.short_count(1_263_400_000), "1.26G"),
        (markup.short_count(272_500_000), "272M"),
        (markup.short_count(600_000), "600k"),
        (markup.duration(9.96), "10.0\u202fs"),
        (markup.duration(59.7), "1\u202fmin 00\u202fs"),
        (markup.duration(862.4), "14\u202fmin 22\u202fs"),
        (markup.duration(3720), "1\u202fh 02\u202fmin"),
        (markup.decimal(None), markup.MISSING),
        (markup.scientific(math.nan), markup.MISSING),
        (markup.duration(math.inf), markup.MISSING),
    ],
)
def test_number_formats(text: str, expected: str) -> None:
    assert text == expected


@given(st.text())
def test_escaped_text_is_inert_and_encodable(text: str) -> None:
    safe = markup.escape(text)
    assert not set(safe) & set("<>\"'")
    safe.encode("utf-8")


@given(st.lists(st.floats(0, 300), min_size=1, max_size=4))
def test_spread_labels_do_not_overlap(centres: list[float]) -> None:
    wide = [70.0] * len(centres)
    placed = spread(sorted(centres), wide, 0.0, 300.0)
    assert placed[0] >= 35 - 1e-9 and placed[-1] <= 265 + 1e-9
    gaps = [later - earlier for earlier, later in pairwise(placed)]
    assert all(gap >= 70 - 1e-6 for gap in gaps)


def test_spread_leaves_labels_with_room() -> None:
    assert spread([50.0, 150.0], [60.0, 60.0], 0.0, 300.0) == [50.0, 150.0]


@pytest.mark.parametrize("preset", ["S", "nano"])
def test_parts_agree_with_the_tensors(preset: str) -> None:
    config = ModelConfig.preset(preset)
    shape = dict(config.to_dict()) | {
        "total_params": config.total_params,
        "active_params": config.active_params,
    }
    split = parts(shape)  # type: ignore[arg-type]
    experts = sum(weight.size for weight in config.weights() if weight.kind == "expert")
    assert split.chosen + split.idle == experts
    assert split.chosen * config.num_local_experts == experts * config.num_experts_per_tok
    total = split.embedding + split.always + split.chosen + split.idle
    assert total == config.total_params


def test_experts_are_sorted_by_their_domain() -> None:
    code = [0.1, 0.5, 0.0, 0.3, 0.1]
    math_ = [0.3, 0.1, 0.0, 0.1, 0.5]
    # 1 and 3 prefer code (1 more so), 4 and 0 prefer math, 2 is never used.
    assert expert_order([code, math_]) == [1, 3, 4, 0, 2]


@pytest.mark.parametrize(
    ("ratio", "name"),
    [(0.0, "less-3"), (0.25, "less-2"), (0.6, "less-1"), (1.0, "even"), (1.5, "more-1"),
     (3.0, "more-2"), (15.0, "more-3")],
)  # fmt: skip
def test_heat_classes_diverge_from_uniform(ratio: float, name: str) -> None:
    assert heat_class(ratio) == f"heat-{name}"


def test_relative_perplexity() -> None:
    rows: Any = [
        {"name": "BF16", "note": "", "perplexity": {"code": 10.0}},
        {"name": "PTQ INT4", "note": "", "perplexity": {"code": 12.5}},
        {"name": "QAT INT4", "note": "", "perplexity": {"code": None}},
    ]
    assert relative(rows, "code") == {"BF16": 0.0, "PTQ INT4": 0.25}
    assert relative(rows[1:], "code") == {}


def test_smoothing_keeps_a_line_and_short_curves() -> None:
    line = [float(value) for value in range(100)]
    assert smoothed(line)[10:90] == line[10:90]
    assert smoothed([3.0, 1.0, 2.0]) == [3.0, 1.0, 2.0]


def _contrast(first: str, second: str) -> float:
    """Contrast ratio of two colours, WCAG 2.1."""

    def luminance(colour: str) -> float:
        parts_ = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts_]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1])
@pytest.mark.parametrize("name", ["ink", "soft", "moe", "dense", "good", "bad"])
def test_text_colours_have_contrast(name: str, theme: int) -> None:
    paper, tint = PALETTE["paper"][theme], PALETTE["moe-tint"][theme]
    assert _contrast(PALETTE[name][theme], paper) >= 4.5
    if name in ("ink", "moe"):
        assert _contrast(PALETTE[name][theme], tint) >= 4.5


def test_light_colours_are_distinct() -> None:
    lights = [colours[0] for colours in PALETTE.values()]
    assert len(set(lights)) == len(lights)
