"""`show_plan`: the tables, the document, and a refusal that still shows the memory."""

from __future__ import annotations

import json
import re

import pytest

from mobilemoe.cli.train_plan import show_plan
from mobilemoe.errors import MobileMoEError
from paper_recipes import paper_recipe

Capture = pytest.CaptureFixture[str]


def test_tables_show_memory_communication_time_money_and_sources(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "240")
    show_plan(paper_recipe("S"), 256, "h100", price=3.0)
    out, err = capsys.readouterr()
    assert err == ""
    for text in (
        "s: 1.26 billion parameters, 272 million per token, on 256 x H100 SXM 80GB",
        "Memory per GPU",
        "activations: experts",
        "training's own sharding on fake devices",
        "tokens to experts: all-to-all",
        "wall time",
        "money, $",
        "3 $/GPU-hour",
        "given on the command line",
        "NVIDIA H100 data sheet",
    ):
        assert text in out, text


def test_json_is_one_document(capsys: Capture) -> None:
    show_plan(paper_recipe("S"), 16, "h100", gpus_per_node=4, mfu=0.3, as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert document["layout"]["gpus_per_node"] == 4
    assert document["states"]["source"].startswith("training's own sharding on fake devices")
    assert document["money"] == pytest.approx(sum(s["money"] for s in document["stages"]))
    assert {q["name"]: q["value"] for q in document["inputs"]}["mfu"] == 0.3


def test_a_refused_plan_shows_its_memory_first(capsys: Capture) -> None:
    with pytest.raises(MobileMoEError, match="midtrain needs"):
        show_plan(paper_recipe("L"), 256, "h100")
    out = capsys.readouterr().out
    assert "Memory per GPU" in out
    assert re.search(r"of the GPU .* 1[01]\d%", out)
    assert "counted by arithmetic" in out
    assert "money" not in out


def test_a_refused_plan_prints_no_document(capsys: Capture) -> None:
    with pytest.raises(MobileMoEError):
        show_plan(paper_recipe("L"), 256, "h100", as_json=True)
    assert capsys.readouterr().out == ""


def test_an_unknown_gpu_is_refused_before_anything_is_counted(capsys: Capture) -> None:
    with pytest.raises(MobileMoEError, match="allowed: a100"):
        show_plan(paper_recipe("S"), 256, "tpu")
    assert capsys.readouterr().out == ""
