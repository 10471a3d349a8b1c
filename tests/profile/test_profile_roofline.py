"""The picture: every row is a labelled point, in the format that the ending names."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from profile_support import DENSE, write

from mobilemoe.profile.benchmark import Plan, run_benchmark
from mobilemoe.profile.roofline import draw_roofline

PLAN = Plan(prompts=(9,), generated=(3,), threads=(1,), rounds=1, memory=False)


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    folder = tmp_path_factory.mktemp("roof")
    moe, dense = write(folder / "moe"), write(folder / "dense", DENSE)
    return run_benchmark(moe.folder, replace(PLAN, versus=str(dense.folder)))


def test_every_row_and_both_roofs_are_named(document, tmp_path):
    import matplotlib as mpl

    with mpl.rc_context({"svg.fonttype": "none"}):
        draw_roofline(document, tmp_path / "roof.svg")
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", (tmp_path / "roof.svg").read_text())
    for part in (document, document["versus"]):
        for row, name in zip(part["rows"], ("pp9", "tg3"), strict=True):
            assert f"{name}: {row['share_of_ceiling']:.0%}" in texts
            assert f"{part['model']['name']}, {row['kind']}" in texts
    joined = "\n".join(texts)
    for words in ("int8 peak", "fp32 peak", "read bandwidth", "operational intensity", "GMAC/s"):
        assert words in joined


def test_png_is_png(document, tmp_path):
    draw_roofline(document, tmp_path / "roof.png")
    assert (tmp_path / "roof.png").read_bytes().startswith(b"\x89PNG")
