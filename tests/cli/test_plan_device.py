"""`mobilemoe plan device` and `mobilemoe plan calibrate`, as a user runs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mobilemoe import ModelConfig
from mobilemoe.plan.device import Request, builtin_profiles, load_profile, request_cost

from .conftest import Run


def test_without_a_name_the_profiles_are_listed(run: Run) -> None:
    done = run("plan", "device")
    assert (done.returncode, done.stderr) == (0, "")
    assert all(name in done.stdout for name in builtin_profiles())
    listed = json.loads(run("plan", "device", "--json").stdout)["profiles"]
    assert [one["name"] for one in listed] == list(builtin_profiles())


def test_the_request_on_the_screen_and_as_json(run: Run) -> None:
    arguments = ("plan", "device", "galaxy-s25", "--model", "S", "--prompt", "1024")
    shown = run(*arguments, "--answer", "128")
    assert (shown.returncode, shown.stderr) == (0, "")
    for word in ("first token after", "published", "assumed", "per million requests"):
        assert word in shown.stdout
    document = json.loads(run(*arguments, "--answer", "128", "--json").stdout)
    cost = request_cost(load_profile("galaxy-s25"), ModelConfig.preset("S"), Request(1024, 128))
    assert document["ttft_ms"] == pytest.approx(cost.ttft_ms)
    assert document["money"] == pytest.approx(cost.money)
    assert document["by_context"][1]["context"] == 1024
    assert document["inputs"]["power.decode"]["origin"] == "assumed"


def test_stated_rates_replace_those_of_the_profile(run: Run) -> None:
    arguments = ("plan", "device", "iphone-16-pro", "--watts", "0", "--per-hour", "3600", "--json")
    document = json.loads(run(*arguments, "--context", "512").stdout)
    assert document["joules"] == 0
    assert document["money"] == pytest.approx(document["total_ms"] / 1000)
    assert [row["context"] for row in document["by_context"]] == [512]


def test_what_is_wrong_is_said(run: Run) -> None:
    done = run("plan", "device", "pixel")
    assert done.returncode == 1 and "device is 'pixel'" in done.stderr and "hint:" in done.stderr
    done = run("plan", "device", "galaxy-s25", "--threads", "2")
    assert done.returncode == 1 and "allowed with galaxy-s25: 4" in done.stderr
    assert run("plan", "device", "galaxy-s25", "--context", "a").returncode == 2


def test_a_bench_becomes_a_profile(run: Run, base_model: Path, tmp_path: Path) -> None:
    arguments = ("-p", "8,64", "-n", "4", "-d", "0,16,64,128", "-t", "1", "-r", "1", "-o", "json")
    bench = run("bench", base_model, *arguments, "--no-memory")
    (tmp_path / "bench.json").write_text(bench.stdout, encoding="utf-8")
    kv = run("bench", base_model, *arguments, "--no-memory", "--kv", "fp16")
    (tmp_path / "kv.json").write_text(f"[{kv.stdout}]", encoding="utf-8")
    out = tmp_path / "my.toml"
    command = ("plan", "calibrate", tmp_path / "bench.json", tmp_path / "kv.json")
    done = run(*command, "--name", "laptop", "--out", out, "--json", "--cache", "16MB")
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert document["rows"] == 24 and set(document["left_out"]) == {"context", "row"}
    assert document["constants"]["cache_bytes"]["value"] == 16e6
    profile = load_profile(out)
    assert set(profile.attention) == {"int8", "fp16"} and profile.name == "laptop"
    used = run("plan", "device", out, "--model", base_model, "--kv", "fp16", "--json")
    assert json.loads(used.stdout)["ttft_ms"] > 0
    shown = run(*command, "--name", "laptop", "--out", out)
    assert "each context" in shown.stdout and "measured" in shown.stdout


def test_calibrate_refuses_what_is_no_bench(run: Run, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}", encoding="utf-8")
    command = ("plan", "calibrate", tmp_path / "x.json", "--name", "a", "--out")
    done = run(*command, tmp_path / "a.toml")
    assert done.returncode == 1 and "not a document of this version's" in done.stderr
    assert run(*command, tmp_path / "a.json").returncode == 2
    missing = run("plan", "calibrate", tmp_path / "y.json", "--name", "a", "--out", "a.toml")
    assert missing.returncode == 1 and "cannot read" in missing.stderr
