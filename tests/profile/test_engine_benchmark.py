"""benchmarks/engine.py: pieces are merged, shapes are not mixed, the table says what was met."""

from __future__ import annotations

import json

import pytest

import engine as engine_benchmark  # benchmarks/ is no package
from mobilemoe import ModelConfig

SMALL = ["--model", "nano", "--dense", "nano", "--prompts", "8,16", "--generated", "3"]
SMALL += ["--depth", "32", "--threads", "1", "--rounds", "1"]


def test_pieces_are_added_to_the_file_of_the_same_shapes(tmp_path, capsys):
    out = tmp_path / "engine.json"
    common = [str(tmp_path / "work"), "--out", str(out), *SMALL]
    engine_benchmark.main([*common, "--pieces", "dense"])
    printed = capsys.readouterr().out.splitlines()
    document = json.loads(out.read_text())
    assert json.loads(printed[-1])["table"] == document["table"]
    assert [line["target"] for line in document["table"]] == [">= 2.9x", ">= 2.8x"] * 2
    rows = document["pieces"]["dense"]["rows"]
    assert [(row["tokens"], row["depth"]) for row in rows] == [(8, 0), (3, 0), (8, 32), (3, 32)]
    assert all(len(row["tok_s_all"]) == 1 for row in rows)
    assert document["pieces"]["dense"]["machine"]["instruction_set"]
    shapes = document["shapes"]
    assert engine_benchmark.earlier_pieces(out, shapes) == document["pieces"]
    assert engine_benchmark.earlier_pieces(out, shapes | {"model": "S"}) == {}
    assert engine_benchmark.earlier_pieces(tmp_path / "none.json", shapes) == {}


def test_the_memory_piece_has_a_plan_and_both_engines(tmp_path):
    pytest.importorskip("llama_cpp")
    out = tmp_path / "engine.json"
    common = [str(tmp_path / "work"), "--out", str(out), *SMALL]
    engine_benchmark.main([*common, "--pieces", "memory"])
    piece = json.loads(out.read_text())["pieces"]["memory"]
    weights_mib = ModelConfig.preset("nano").weight_bytes("int4") / (1 << 20)
    assert weights_mib < piece["ours"]["real_mib"] <= 1.05 * piece["ours"]["plan_mib"]
    assert piece["llama.cpp"]["plan_mib"] is None
    assert piece["llama.cpp"]["real_mib"] > 5


def test_an_unknown_piece_is_wrong_usage(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        engine_benchmark.main([str(tmp_path), "--pieces", "decode,prose"])
    assert caught.value.code == 2
    assert "no piece called prose" in capsys.readouterr().err


def test_a_target_is_met_on_its_own_side():
    by_name = {
        target.name: target
        for target in engine_benchmark.targets(
            engine_benchmark.Job("w", "S", "D", "L", (512, 2048), 128, 4096, 2, 5)
        )
    }
    assert by_name["decode S / llama.cpp"].met(1.6)
    assert not by_name["decode S / llama.cpp"].met(1.59)
    assert by_name["peak RSS S, 4096 context"].met(0.85)
    assert not by_name["peak RSS S, 4096 context"].met(0.86)
    assert len(by_name) == 14
