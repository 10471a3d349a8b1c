"""The report page: self-contained, complete, escaped, deterministic, honest about gaps."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any, NotRequired, get_origin, get_type_hints

import pytest
from report_example import synthetic_report

from html_page import Page
from mobilemoe.demo.page import SECTIONS, render, write_report
from mobilemoe.demo.schema import Report
from mobilemoe.errors import MobileMoEError
from mobilemoe.page.markup import MINUS

OPTIONAL = sorted(
    name
    for name, hint in get_type_hints(Report, include_extras=True).items()
    if get_origin(hint) is NotRequired
)
HOSTILE = "</pre><script>alert('x')</script><img src=x onerror=\"y\"> & \ud800 \x00 $\\frac{a$"


@pytest.fixture(scope="module")
def html() -> str:
    return render(synthetic_report())


def test_page_loads_nothing(html: str) -> None:
    assert "http" not in html
    assert not re.search(r"url\((?!#)|@import|@font-face", html)
    forbidden = {"script", "link", "img", "iframe", "object", "embed", "image", "base"}
    assert not {tag for tag, _ in Page(html).tags} & forbidden
    for tag, attributes in Page(html).tags:
        assert "src" not in attributes, tag
        assert (attributes.get("href") or "#").startswith("#"), (tag, attributes)


def test_all_sections_are_there_in_order(html: str) -> None:
    ids = [attributes["id"] for tag, attributes in Page(html).tags if tag == "section"]
    assert ids == [name for name, _ in SECTIONS]
    assert len(ids) == 9
    assert 'id="result"' in html and 'id="warnings"' in html


def test_ids_are_unique_and_references_resolve(html: str) -> None:
    ids = [attributes["id"] for _, attributes in Page(html).tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    used = set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', html))
    assert {left or right for left, right in used} <= set(ids)


def test_every_figure_has_a_caption_and_a_name(html: str) -> None:
    tags = Page(html).tags
    figures = sum(tag == "figure" for tag, _ in tags)
    assert figures == sum(tag == "figcaption" for tag, _ in tags) >= 8
    drawings = [attributes for tag, attributes in tags if tag == "svg" and "role" in attributes]
    assert len(drawings) == 14  # seven drawings, wide and narrow
    assert all(drawing["role"] == "img" and drawing["aria-label"] for drawing in drawings)


def test_basics_of_an_accessible_page(html: str) -> None:
    tags = Page(html).tags
    assert ("html", {"lang": "en"}) in tags
    assert any(attributes.get("name") == "viewport" for tag, attributes in tags if tag == "meta")
    assert "<title>A small mixture of experts" in html
    assert "prefers-color-scheme:dark" in html
    assert sum(tag == "h1" for tag, _ in tags) == 1


def test_drawn_colours_follow_the_theme(html: str) -> None:
    body = html[html.index("<body>") :]
    assert set(re.findall(r"#[0-9a-f]{6}\b", body)) == set()
    assert "var(--moe)" in body and "var(--dense)" in body


def test_same_report_same_bytes(html: str) -> None:
    assert render(synthetic_report()) == html


def test_file_sizes_are_exact_to_the_byte(html: str) -> None:
    section = html[html.index('id="files"') : html.index('id="speed"')]
    for part in synthetic_report()["files"].values():
        for size in part.values():
            assert f"<td>{size:,}</td>" in section
    assert section.count("✓ yes") == 4 and "✗" not in section


def test_one_byte_off_is_said() -> None:
    report = synthetic_report()
    report["files"]["int4"]["tensor_bytes"] += 1
    page = render(report)
    section = page[page.index('id="files"') : page.index('id="speed"')]
    assert section.count("✗ no</span>, 1") == 1  # more than planned
    assert section.count(f"✗ no</span>, {MINUS}1") == 1  # no longer adds up


def _hostile(value: Any) -> Any:
    """Replace every free text (not keys, not choices) by an attack."""
    if isinstance(value, dict):
        fixed = {"kind", "dispatch"}
        return {key: item if key in fixed else _hostile(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_hostile(item) for item in value]
    return HOSTILE if isinstance(value, str) else value


def test_all_text_is_escaped() -> None:
    report = _hostile(synthetic_report())
    for stage in report["stages"]:
        stage["mixture"] = {HOSTILE: 1.0}
    report["quantization"]["rows"][0]["perplexity"][HOSTILE] = 2.0
    page = render(report)
    tags = Page(page).tags
    assert not {tag for tag, _ in tags} & {"script", "img"}
    assert not any(name.startswith("on") for _, attributes in tags for name in attributes)
    assert page.count("&lt;script&gt;alert(&#x27;x&#x27;)") >= 20
    assert "\x00" not in page
    assert "�" in page
    page.encode("utf-8")


def test_sample_text_survives_unchanged() -> None:
    report = synthetic_report()
    report["samples"] = [{"kind": "completion", "prompt": "if a < b:\n", "text": "    a &= b"}]
    assert "<pre>\n<mark>if a &lt; b:\n</mark>    a &amp;= b</pre>" in render(report)


def test_optional_parts() -> None:
    assert len(OPTIONAL) == 8


@pytest.mark.parametrize("key", OPTIONAL)
@pytest.mark.parametrize("how", ["null", "absent"])
def test_missing_part_is_said_not_invented(key: str, how: str) -> None:
    report = {name: None if name in OPTIONAL else part for name, part in synthetic_report().items()}
    for other in OPTIONAL:
        if other != key and other in ("files", "parity"):  # parts without figures: fast
            report[other] = synthetic_report()[other]
    if how == "absent":
        del report[key]
    page = render(report)
    name = {"stages": "training", "data": "training"}.get(key, key)
    section = page[page.index(f'<section id="{name}"') :]
    assert "not measured" in section[: section.index("</section>")]


def _unmeasured(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _unmeasured(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_unmeasured(item) for item in value]
    return float("nan") if isinstance(value, float) else value


def test_nan_everywhere_is_not_measured() -> None:
    full, report = synthetic_report(), _unmeasured(synthetic_report())
    for stage, measured in zip(report["stages"], full["stages"], strict=True):
        stage["curve"]["tokens"] = measured["curve"]["tokens"]
        stage["lowered"] = None
    page = render(report)
    text = re.sub(r"<style>.*?</style>|<[^>]*>", "", page, flags=re.DOTALL)
    assert not re.search(r"\bnan\b|\bNone\b|\binf\b", text, flags=re.IGNORECASE)
    assert text.count("not measured") > 60


def test_speed_words_follow_the_numbers() -> None:
    report = synthetic_report()
    assert "decodes 2.25 times faster than" in render(report)
    moe, twin = report["speed"]["models"]
    moe["decode_tok_s"], twin["decode_tok_s"] = [10.0, 90.0, 20.0], [40.0, 40.0, 1.0]
    assert "decodes 2.00 times slower than" in render(report)
    report["speed"]["models"] = [moe]
    page = render(report)
    assert "beside a dense twin was not measured" in page and "times slower" not in page


def test_stage_verdict_names_where_it_failed(html: str) -> None:
    assert "✓ yes: lowered on code, math</span>" in html
    assert "✗ no: lowered on code, knowledge, math; not lowered on instruct</span>" in html


def test_no_warnings_no_box() -> None:
    report = synthetic_report()
    report["warnings"] = []
    assert 'id="warnings"' not in render(report)


def test_write_report_replaces_both_files(tmp_path: Path) -> None:
    report = synthetic_report()
    report["parity"]["relative_error"] = float("nan")
    folder = tmp_path / "new" / "run"
    folder.mkdir(parents=True)
    (folder / "report.html").write_text("old", encoding="utf-8")
    page, data = write_report(folder, report)
    assert page.read_text(encoding="utf-8") == render(report)
    stored = json.loads(data.read_text(encoding="utf-8"), parse_constant=lambda word: word)
    expected = copy.deepcopy(report)
    expected["parity"]["relative_error"] = None
    assert stored == expected
    assert sorted(path.name for path in folder.iterdir()) == ["report.html", "report.json"]


def test_bad_report_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(MobileMoEError):
        write_report(tmp_path / "run", {"schema": 1})
    assert list(tmp_path.iterdir()) == []
