"""The training report: complete, self-contained, honest about gaps, right about the numbers."""

from __future__ import annotations

import base64
import json
import math
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from event_stream import EXPERTS, LAYERS, LEVELS, step, write_run

from html_page import Page
from mobilemoe.errors import MobileMoEError
from mobilemoe.page.curves import thinned
from mobilemoe.page.markup import MINUS
from mobilemoe.page.style import PALETTE
from mobilemoe.train.events import Alarm, ExpertLoads, RolledBack, StepSkipped
from mobilemoe.train.journal import Entry, Journal
from mobilemoe.train.report import write_train_report
from mobilemoe.train.report.heat import colours, layer_loads
from mobilemoe.train.report.page import render
from mobilemoe.train.report.record import RunRecord, StageRecord, read_run

STEPS = {"pretrain": 60, "midtrain": 40, "sft": 30, "qat": 20}
HOSTILE = "</pre><script>alert('x')</script><img src=x onerror=\"y\"> & \x00 $\\frac{a$"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with its report."""
    run = write_run(tmp_path_factory.mktemp("runs") / "nano", STEPS)
    assert write_train_report(run) == run / "report.html"
    return run


@pytest.fixture(scope="module")
def html(folder: Path) -> str:
    return (folder / "report.html").read_text("utf-8")


def test_the_page_loads_nothing(html: str) -> None:
    assert "http" not in html
    assert not re.search(r"url\((?!#)|@import|@font-face", html)
    tags = Page(html).tags
    assert not {tag for tag, _ in tags} & {"script", "link", "iframe", "object", "embed", "base"}
    for _, attributes in tags:
        for name in ("src", "srcset"):
            assert (attributes.get(name) or "data:image/png;base64,").startswith("data:image/png")
        assert (attributes.get("href") or "#").startswith("#")


def test_every_part_is_there_and_named(html: str) -> None:
    tags = Page(html).tags
    sections = [attributes["id"] for tag, attributes in tags if tag == "section"]
    assert sections == ["loss", "stages", "gradient", "signs", "load", "trouble", "recipe"]
    figures = sum(tag == "figure" for tag, _ in tags)
    assert figures == sum(tag == "figcaption" for tag, _ in tags) == 5
    drawings = [attributes for tag, attributes in tags if tag == "svg" and "role" in attributes]
    assert len(drawings) == 8 and all(drawing["aria-label"] for drawing in drawings)
    assert all(attributes["alt"] for tag, attributes in tags if tag == "img")
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_curves_follow_the_theme_and_heat_has_an_image_for_each(html: str) -> None:
    body = html[html.index("<body>") :]
    assert set(re.findall(r"#[0-9a-f]{6}\b", body)) == set()
    assert html.count('<source media="(prefers-color-scheme:dark)"') == LAYERS
    images = set(re.findall(r'base64,([^"]+)"', body))
    assert len(images) == 2 * LAYERS
    assert all(base64.b64decode(image).startswith(b"\x89PNG") for image in images)


def test_the_run_is_introduced(html: str) -> None:
    assert "<h1>nano-12mb</h1>" in html
    assert "AMD EPYC 7B13, 2 cores · 2026-11-03 09:12 UTC · recipe 3f9ac2e1" in html
    assert "307k tokens in 4 stages (pretrain, midtrain, sft, qat)" in html


def test_the_table_holds_what_was_measured(html: str) -> None:
    table = html[html.index('id="stages"') : html.index('id="gradient"')]
    for steps in STEPS.values():
        assert f"<td>{steps}</td>" in table
    high, low = LEVELS["pretrain"]
    before, after = high - 0.28, low - 0.24
    assert f"{before:.3f} → {after:.3f}" in table
    assert f'<span class="good nb">{MINUS}{before - after:.3f}</span>' in table
    assert '<span class="bad nb">+0' not in table


def test_a_loss_that_rose_is_marked(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"pretrain": 12})
    worse = {"before": {"code": 2.0, "math": None}, "after": {"code": 2.5, "math": 3.0}}
    (run / "stages" / "pretrain" / "heldout.json").write_text(json.dumps(worse))
    page = render(read_run(run))
    assert '2.000 → 2.500<br><span class="bad nb">+0.500</span>' in page
    assert "3.000 after" in page


def test_troubles_are_listed_with_place_and_reason(html: str) -> None:
    part = html[html.index('id="trouble"') : html.index('id="recipe"')]
    rows = re.findall(r'<tr><th scope="row">(.*?)</th><td>(.*?)</td><td>(.*?)</td>', part)
    assert ("pretrain", "33", "skipped") in rows
    assert ("pretrain", "43", "alarm: collapse") in rows
    assert ("midtrain", "32", "back to 27") in rows
    assert "loss is not finite (loss nan, gradient inf; rows 3, 9)" in part
    assert len(rows) == 6


def test_the_recipe_is_folded_in(html: str) -> None:
    assert "<details><summary>recipe.toml, 5 lines</summary>" in html
    assert "preset = &quot;nano&quot;" in html


def test_figures_are_files_too(folder: Path) -> None:
    names = ("domains", "gradient", "load", "loss", "signs")
    found = sorted(path.name for path in (folder / "figures").iterdir())
    assert found == sorted(f"{name}.{kind}" for name in names for kind in ("png", "svg"))
    for path in (folder / "figures").iterdir():
        start = b"\x89PNG" if path.suffix == ".png" else b"<?xml"
        assert path.read_bytes().startswith(start)


def test_the_same_run_gives_the_same_page(folder: Path, html: str) -> None:
    assert render(read_run(folder)) == html


def test_a_run_that_has_only_begun_is_reported(tmp_path: Path) -> None:
    """One step, nothing beside the journal: no load, no held-out loss, no recipe, no name."""
    run = tmp_path / "young"
    journal = Journal(run / "stages" / "pretrain" / "metrics.jsonl")
    journal.append(step(1, domain_loss={}, mfu=None))
    Journal(run / "stages" / "midtrain" / "metrics.jsonl").close()
    page = render(read_run(run))
    assert "<h1>young</h1>" in page and "1 stage (pretrain)" in page and "1 step<" in page
    assert "The loads of experts were not counted" in page
    assert "Held-out losses were not measured yet" in page
    assert "No alarm, no skipped step, no rollback" in page
    assert "no recipe.toml" in page
    assert "Model FLOPs" not in page
    assert "nan" not in page[page.index("<body>") :].replace("nano", "")


def test_a_run_that_never_was_finite_is_reported(tmp_path: Path) -> None:
    run = tmp_path / "run"
    journal = Journal(run / "stages" / "pretrain" / "metrics.jsonl")
    for number in (1, 2):
        bad = {"code": math.nan}
        journal.append(step(number, loss=math.nan, grad_norm=math.inf, domain_loss=bad))
    assert render(read_run(run))


def test_all_text_is_escaped(tmp_path: Path) -> None:
    run = tmp_path / "run"
    journal = Journal(run / "stages" / "pretrain" / "metrics.jsonl")
    journal.append(step(1, domain_loss={HOSTILE: 2.0}))
    journal.append(Alarm("pretrain", 1, HOSTILE, HOSTILE))
    journal.append(StepSkipped("pretrain", 2, HOSTILE, 1.0, 1.0, (1,), (HOSTILE,)))
    journal.append(RolledBack("pretrain", 2, 1, HOSTILE))
    about = {"name": HOSTILE, "recipe_id": HOSTILE, "machine": HOSTILE, "started": HOSTILE}
    (run / "run.json").write_text(json.dumps(about))
    (run / "recipe.toml").write_text(HOSTILE)
    page = render(read_run(run))
    tags = Page(page).tags
    assert not {tag for tag, _ in tags} & {"script", "img"}
    assert not any(name.startswith("on") for _, attributes in tags for name in attributes)
    assert "\x00" not in page
    assert page.count("&lt;script&gt;alert(") >= 10


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "no step has been trained yet"),
        ({"stages/pretrain/metrics.jsonl": ""}, "no step has been trained yet"),
        ({"stages/sft/metrics.jsonl": "{}\n"}, "line 1 is damaged"),
    ],
)
def test_rejects_a_run_without_steps(tmp_path: Path, content: dict[str, str], message: str) -> None:
    for name, text in content.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    with pytest.raises(MobileMoEError, match=message):
        write_train_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("run.json", "{", r"cannot read .*run\.json"),
        ("run.json", "[]", r"run\.json holds no JSON object"),
        ("stages/pretrain/heldout.json", '{"before": {"code": "low"}}', "heldout.json: before is"),
        ("stages/pretrain/heldout.json", '{"after": 3}', "heldout.json: after is 3"),
    ],
)
def test_rejects_a_damaged_file(tmp_path: Path, name: str, text: str, message: str) -> None:
    run = write_run(tmp_path / "run", {"pretrain": 2})
    (run / name).write_text(text)
    with pytest.raises(MobileMoEError, match=message):
        write_train_report(run)


def test_rejects_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MobileMoEError, match="there is no such folder"):
        write_train_report(tmp_path / "none")


def test_without_matplotlib_the_extra_is_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(folder, tmp_path / "run")
    (run / "report.html").unlink()
    for name in [name for name in sys.modules if name.startswith("mobilemoe.train.report.")]:
        if name.rsplit(".", 1)[-1] in ("axis", "curves", "heat", "sections"):
            monkeypatch.delitem(sys.modules, name)
            monkeypatch.delattr(sys.modules["mobilemoe.train.report"], name.rsplit(".", 1)[-1])
    monkeypatch.delitem(sys.modules, "mobilemoe.page.canvas", raising=False)
    real = {name for name in sys.modules if name.split(".")[0] == "matplotlib"}
    for name in real:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MobileMoEError, match="matplotlib, which is not installed") as caught:
        write_train_report(run)
    assert "mobilemoe[plots]" in caught.value.hint
    assert not (run / "report.html").exists()


def stage(*events: object, name: str = "pretrain") -> StageRecord:
    return StageRecord(name, tuple(Entry(0.0, event) for event in events), {}, {})  # type: ignore[arg-type]


def run_of(*stages: StageRecord) -> RunRecord:
    return RunRecord("run", "", "", "", "", stages)


def test_what_a_rollback_undid_is_no_part_of_the_curves() -> None:
    back = RolledBack("pretrain", 3, 1, "")
    record = stage(step(1), step(2), step(3), back, step(2, loss=7.0), seconds := step(3))
    assert [s.step for s in record.steps] == [1, 2, 3]
    assert record.steps[1].loss == step(2, loss=7.0).loss
    assert record.seconds == pytest.approx(5 * seconds.seconds)


def test_loads_that_were_undone_are_not_shown() -> None:
    loads = [ExpertLoads("pretrain", n, ((n, 1),)) for n in (1, 2, 3)]
    back = RolledBack("pretrain", 3, 1, "")
    record = stage(step(1), loads[0], step(2), loads[1], back, step(2), step(3), loads[2])
    assert record.loads == [loads[0], loads[2]]


@pytest.mark.parametrize(
    ("about", "line"),
    [
        ({"machine": "x86_64", "cores": 2}, "x86_64, 2 cores · recipe"),
        ({"machine": {"gpu": "NVIDIA H100", "cpu": "EPYC", "cores": 8}}, "NVIDIA H100, EPYC, 8 c"),
        ({"cores": 3}, "3 cores"),
    ],
)
def test_the_machine_is_named(tmp_path: Path, about: dict[str, object], line: str) -> None:
    run = write_run(tmp_path / "run", {"pretrain": 1})
    (run / "run.json").write_text(json.dumps(about | {"recipe_id": "0123456789abcdef"}))
    record = read_run(run)
    assert f"{record.machine} · recipe".startswith(line)
    assert record.recipe_id == "0123456789ab"


def test_stages_are_in_the_order_they_were_trained(folder: Path) -> None:
    run = read_run(folder)
    assert [s.name for s in run.stages] == list(STEPS)
    assert run.tokens == sum(STEPS.values()) * 2048
    assert run.starts()[2][0] == (60 + 40) * 2048
    assert run.domains == ["code", "knowledge", "math", "instruct"]


def test_loads_are_multiples_of_their_layers_mean() -> None:
    first = ExpertLoads("pretrain", 5, ((8, 2, 2), (0, 0, 0)))
    second = ExpertLoads("pretrain", 10, ((3, 3, 3), (0, 0, 0)))
    (layer,) = layer_loads(run_of(stage(step(5), first, step(10), second)))
    np.testing.assert_allclose(layer.ratio_EX, [[2, 1], [0.5, 1], [0.5, 1]])
    assert layer.number == 0  # a dense layer, or one nobody counted, has no map
    assert layer.worst == (0, 1.0, 2.0)


def test_what_was_not_counted_yet_shows_the_last_count() -> None:
    loads = [ExpertLoads("pretrain", n, ((n, 1),)) for n in (1, 3)]
    (layer,) = layer_loads(run_of(stage(step(1), loads[0], step(3), loads[1], step(8))))
    np.testing.assert_allclose(layer.ratio_EX[0], [8 / 6, 1.5])


def test_a_column_never_mixes_two_stages() -> None:
    def counts(name: str, last: int, hot: int) -> StageRecord:
        layer = tuple(9 if expert == hot else 1 for expert in range(3))
        loads = [ExpertLoads(name, n, (layer,)) for n in range(1, last + 1)]
        return stage(step(last), *loads, name=name)

    (layer,) = layer_loads(run_of(counts("pretrain", 200, 0), counts("midtrain", 131, 2)))
    hot_X = layer.ratio_EX.argmax(axis=0)
    assert layer.ratio_EX.shape == (3, 120)
    assert set(hot_X) == {0, 2} and (np.diff(hot_X) != 0).sum() == 1
    assert abs((hot_X == 0).mean() - 200 / 331) <= 1 / 120
    np.testing.assert_allclose(layer.ratio_EX.max(axis=0), 27 / 11)


def test_a_count_stands_until_the_next_and_the_last_until_the_end(folder: Path) -> None:
    layers = layer_loads(read_run(folder))
    assert len(layers) == LAYERS
    for layer in layers:
        assert layer.ratio_EX.shape[0] == EXPERTS
        assert not np.isnan(layer.ratio_EX).any()
        np.testing.assert_allclose(layer.ratio_EX.mean(axis=0), 1.0)


@pytest.mark.parametrize("theme", [0, 1])
def test_colours_diverge_around_the_mean(theme: int) -> None:
    ratios = np.array([[0.0, 0.25, 1.0, 4.0, 99.0, np.nan]])
    names = ("heat-less-3", "heat-less-3", "heat-even", "heat-more-3", "heat-more-3", "paper")
    expected = ["#" + "".join(f"{c:02x}" for c in pixel) for pixel in colours(ratios, theme)[0]]
    assert expected == [PALETTE[name][theme] for name in names]


def test_thinning_keeps_the_mean_and_drops_what_is_not_finite() -> None:
    x, y = thinned([0.0, 1.0, 2.0, 3.0, 4.0], [1.0, 3.0, math.nan, 5.0, 7.0], 2)
    assert (x, y) == ([0.5, 3.5], [2.0, 6.0])
    assert thinned([1.0], [2.0], 9) == ([1.0], [2.0])
    assert thinned([], [], 9) == ([], [])
