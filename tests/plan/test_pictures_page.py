"""A plan's page and files: self-contained, complete, honest about what is missing."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from html_page import Page
from mobilemoe.cli import app
from mobilemoe.errors import MobileMoEError
from mobilemoe.page.style import light
from mobilemoe.plan import Constraints, Plan, plan
from mobilemoe.plan.device import load_profile
from mobilemoe.plan.pictures import plan_data, plan_drawings, plan_page, save_pictures
from mobilemoe.plan.pictures.front import candidate_name, front_points
from mobilemoe.plan.pictures.inputs import plan_inputs

PHONE = load_profile("galaxy-s25")
KINDS = {"measured", "published", "assumed", "stated"}
SECTIONS = ["front", "choice", "doubt", "regions", "memory", "latency", "cost", "law", "inputs"]
HOSTILE = "<script>alert('x')</script> & \x00"


def planned(**limits: object) -> Plan:
    asked = {"memory_bytes": 800_000_000, "context": 4096, "train_flops": 1e21, **limits}
    return plan(Constraints(**asked), with_sensitivity=False)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def usual() -> Plan:
    return planned(device=PHONE, decode_tok_s=20.0)


@pytest.fixture(scope="module")
def html(usual: Plan) -> str:
    return plan_page(usual)


@pytest.fixture(scope="module")
def nano() -> Plan:
    """A budget that the law does not reach, without a device and without training FLOPs."""
    return planned(memory_bytes=4_750_000, context=1024, vocab_size=4096, train_flops=None)


@pytest.fixture(scope="module")
def nano_html(nano: Plan) -> str:
    return plan_page(nano)


@pytest.fixture(params=["html", "nano_html"])
def page(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(request.param)
    return found


def test_page_loads_nothing(page: str) -> None:
    assert "http" not in page
    assert not re.search(r"url\((?!#)|@import|@font-face", page)
    forbidden = {"script", "link", "img", "iframe", "object", "embed", "image", "base"}
    for tag, attributes in Page(page).tags:
        assert tag not in forbidden and "src" not in attributes, tag
        assert (attributes.get("href") or "#").startswith("#"), (tag, attributes)


def test_page_is_complete_and_its_ids_are_unique(page: str) -> None:
    tags = Page(page).tags
    assert [each["id"] for tag, each in tags if tag == "section"] == SECTIONS
    ids = [each["id"] for _, each in tags if "id" in each]
    assert len(ids) == len(set(ids))
    used = set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', page))
    assert {left or right for left, right in used} <= set(ids)
    assert sum(tag == "h1" for tag, _ in tags) == 1
    assert "prefers-color-scheme:dark" in page


def test_drawn_colours_follow_the_theme(page: str) -> None:
    body = page[page.index("<body>") :]
    assert set(re.findall(r"#[0-9a-f]{6}\b", body)) == set()


def test_every_number_is_finite_or_marked(page: str) -> None:
    found = re.findall(r"\b(?:nan|inf|None|Infinity)\b", Page(page).text, re.IGNORECASE)
    assert found == []
    assert not re.search(r'\b(?:d|points|[xy]\d?|width|height)="[^"]*\b(?:nan|inf)\b', page)


def test_every_figure_has_a_caption_words_and_a_table(html: str, usual: Plan) -> None:
    tags = Page(html).tags
    drawn = plan_drawings(plan_data(usual))
    assert list(drawn) == ["front", "regions", "memory", "cost", "latency", "law"]
    assert sum(tag == "figure" for tag, _ in tags) == len(drawn)
    assert sum(tag == "figcaption" for tag, _ in tags) == len(drawn)
    labels = [each["aria-label"] for tag, each in tags if tag == "svg"]
    assert labels == [each.words for each in _in_page_order(drawn) for _ in ("wide", "narrow")]
    assert all(len(each.words) > 40 and re.search(r"\d", each.words) for each in drawn.values())
    for name in drawn:
        section = html[html.index(f'<section id="{name}"') :].split("</section>")[0]
        assert "<figure>" in section and "<table" in section, name


def _in_page_order(drawn: dict) -> list:  # type: ignore[type-arg]
    return [drawn[name] for name in SECTIONS if name in drawn]


def test_without_device_or_loss_the_page_says_so(nano_html: str, nano: Plan) -> None:
    assert nano.chosen.loss is None
    assert list(plan_drawings(plan_data(nano))) == ["front", "memory", "cost", "law"]
    text = Page(nano_html).text
    assert "No device was named" in text and "no map of budget regions" in text
    assert "not predicted" in text and "compared as if trained on" in text
    section = nano_html[nano_html.index('id="cost"') : nano_html.index('id="law"')]
    assert "extrapolated" not in section.split("<table")[1].split("</table>")[0]


def test_a_front_of_one_model_is_a_page(usual: Plan) -> None:
    alone = replace(usual, front=(usual.chosen,), ties=())
    text = Page(plan_page(alone)).text
    assert candidate_name(usual.chosen) in text
    assert [point.chosen for point in front_points(alone)] == [True]


def test_a_choice_beside_the_front_is_shown_all_the_same(usual: Plan) -> None:
    rest = tuple(each for each in usual.front if each != usual.chosen)
    points = front_points(replace(usual, front=rest))
    assert points[0].chosen and [p.chosen for p in points].count(True) == 1
    assert len(front_points(usual, 3)) <= 4


def test_same_plan_same_bytes(nano: Plan, nano_html: str) -> None:
    assert plan_page(nano) == nano_html


def test_words_of_the_plan_are_escaped(nano: Plan) -> None:
    hostile = replace(nano, confidence=(HOSTILE,), notes=(HOSTILE,), front=(nano.chosen,))
    page = plan_page(hostile)
    assert "<script" not in page and "\x00" not in page
    assert page.count("&lt;script&gt;") == 2
    Page(page)


def test_every_input_is_labelled(usual: Plan, html: str) -> None:
    inputs = plan_inputs(plan_data(usual))
    assert {each.kind for each in inputs} >= {"published", "assumed", "stated"}
    assert {each.kind for each in inputs} <= KINDS
    assert all(each.value and each.source for each in inputs)
    assert {each.part for each in inputs} == {"question", "law", "device", "cluster"}
    by_name = {(each.part, each.name): each for each in inputs}
    assert by_name["question", "memory_bytes"].kind == "stated"
    assert by_name["question", "kv_format"].kind == "assumed"  # nobody asked for it
    section = html[html.index('<section id="inputs"') :]
    assert section.count("<tr>") == len(inputs) + 1


def test_a_law_of_ones_own_is_said_to_be_measured(nano: Plan) -> None:
    from mobilemoe.plan import published_law

    own = replace(published_law(), source="", c=1.9)
    rows = [each for each in plan_inputs(plan_data(nano, own)) if each.part == "law"]
    assert {each.kind for each in rows if each.name != "training FLOPs"} == {"measured"}


def test_pictures_are_written_in_the_formats_asked_for(nano: Plan, tmp_path: Path) -> None:
    paths = save_pictures(nano, tmp_path / "new" / "svg", ("svg",))
    assert [path.name for path in paths] == ["front.svg", "memory.svg", "cost.svg", "law.svg"]
    for path in paths:
        text = path.read_text(encoding="utf-8")
        assert text.startswith("<?xml") and light("paper") in text


def test_rejects_what_it_cannot_draw(nano: Plan, tmp_path: Path) -> None:
    with pytest.raises(MobileMoEError, match="'gif'; allowed: png, svg"):
        save_pictures(nano, tmp_path, ("gif",))  # type: ignore[arg-type]
    with pytest.raises(MobileMoEError, match="gpu is 'z9'"):
        plan_page(nano, gpu="z9")
    with pytest.raises(MobileMoEError, match="gpus"):
        plan_page(nano, gpus=12)


def test_without_matplotlib_the_extra_is_named(
    nano: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = sys.modules["mobilemoe.plan.pictures"]
    for name in [name for name in sys.modules if name.startswith("mobilemoe.plan.pictures.")]:
        short = name.rsplit(".", 1)[-1]
        if short.startswith(("draw_", "sections")) or short in ("axis", "legend"):
            monkeypatch.delitem(sys.modules, name)
            monkeypatch.delattr(package, short)
    monkeypatch.delitem(sys.modules, "mobilemoe.page.canvas", raising=False)
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MobileMoEError, match="matplotlib, which is not installed") as caught:
        plan_page(nano)
    assert "mobilemoe[plots]" in caught.value.hint
    with pytest.raises(MobileMoEError, match="not installed"):
        save_pictures(nano, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_the_command_writes_page_and_pictures(tmp_path: Path) -> None:
    page, folder = tmp_path / "plan.html", tmp_path / "figures"
    words = ["plan", "--memory", "4.75MB", "--context", "1024", "--flops", "3.2MFLOP", "--json"]
    done = CliRunner().invoke(app, [*words, "--html", str(page), "--pictures", str(folder)])
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("{") and done.stdout.rstrip().endswith("}")
    assert f"wrote {page}" in done.stderr
    Page(page.read_text(encoding="utf-8"))
    names = sorted(path.name for path in folder.iterdir())
    figures = ("cost", "front", "law", "memory")
    assert names == [f"{name}.{kind}" for name in figures for kind in ("png", "svg")]
    for path in folder.glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")
