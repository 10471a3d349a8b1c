"""Whole benchmarks on real processes and tiny models; no assertion on how fast they are."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec

import pytest
from profile_support import CONFIG, DENSE, write

from mobilemoe.checkpoint import open_checkpoint
from mobilemoe.checkpoint.fingerprint import fingerprint
from mobilemoe.engine.native import instruction_set
from mobilemoe.errors import MobileMoEError
from mobilemoe.profile.benchmark import Plan, run_benchmark
from mobilemoe.profile.subjects import subject_of

PLAN = Plan(prompts=(9,), generated=(3,), depths=(0, 20), threads=(1,), rounds=2, memory=False)
WITHOUT = """
import sys
for name in sys.argv[1].split():
    sys.modules[name] = None
from mobilemoe.errors import MobileMoEError
from mobilemoe.profile.benchmark import Plan, run_benchmark
try:
    run_benchmark(sys.argv[2], Plan(versus="llama.cpp", threads=(1,), prompts=(4,), generated=()))
except MobileMoEError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def moe(tmp_path_factory):
    return write(tmp_path_factory.mktemp("models") / "moe")


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    return write(tmp_path_factory.mktemp("models") / "dense", DENSE)


@pytest.fixture(scope="module")
def document(moe):
    return run_benchmark(moe.folder, replace(PLAN, memory=True))


def test_the_document_keeps_its_contract(document):
    assert set(document) >= {"machine", "model", "ceilings", "peak_rss_mib", "rows", "versus"}
    assert document["versus"] is None
    assert {"read_gb_s", "int8_gmac_s"} <= set(document["ceilings"])
    json.dumps(document, allow_nan=False)
    names = [(row["kind"], row["tokens"], row["depth"]) for row in document["rows"]]
    assert names == [("prefill", 9, 0), ("decode", 3, 0), ("prefill", 9, 20), ("decode", 3, 20)]
    for row in document["rows"]:
        assert row["threads"] == 1
        assert len(row["tok_s_all"]) == 2
        assert min(row["tok_s_all"]) <= row["tok_s"] <= max(row["tok_s_all"])
        assert row["share_of_ceiling"] > 0
        assert (row["ttft_ms"] is None) == (row["kind"] == "decode")
        assert (row["tpot_ms"] is None) == (row["kind"] == "prefill")


def test_the_document_says_what_was_measured_where(document, moe):
    model = document["model"]
    assert model["fingerprint"] == fingerprint(moe)
    assert model["instruction_set"] == instruction_set() == document["machine"]["instruction_set"]
    assert model["weight_bytes"] == CONFIG.weight_bytes("int4")
    assert (model["activations"], model["kv_format"]) == ("int8", "int8")
    assert document["context"] == 29
    assert document["machine"]["date"]
    for row in document["rows"]:
        decode = row["kind"] == "decode"
        unique = row["unique_experts_per_token"]
        assert unique == 2 if decode else 2 / 9 <= unique <= 6 / 9


def test_memory_is_that_of_processes_of_their_own(document):
    peak = document["peak_rss"]
    assert (peak["tokens"], peak["new_tokens"]) == (13, 16)
    assert 5 < peak["repeated_mib"] < 1e4
    assert document["peak_rss_mib"] == peak["real_mib"]
    assert 5 < peak["real_mib"] <= 1.05 * peak["plan_mib"]


def test_the_repeated_prompt_is_as_long_as_the_real_one(moe):
    subject = subject_of(moe, 40)
    repeated = subject.repeating()
    assert len(subject.ids) == len(repeated.ids) == 41
    assert set(repeated.ids) == {subject.ids[0]}
    assert len(set(subject.ids)) > 20
    assert repeated.checkpoint == subject.checkpoint


def test_another_checkpoint_is_measured_in_turns(moe, dense):
    told: list[str] = []
    plan = replace(PLAN, versus=str(dense.folder))
    document = run_benchmark(moe.folder, plan, told.append)
    other = document["versus"]
    assert other["model"]["name"] == "dense"
    assert len(other["rows"]) == len(other["ratios"]) == 4
    for row, theirs, ratio in zip(document["rows"], other["rows"], other["ratios"], strict=True):
        assert ratio["ratio"] == pytest.approx(row["tok_s"] / theirs["tok_s"])
        assert theirs["unique_experts_per_token"] is None
    assert sum("round 2 of 2" in line for line in told) == 4
    assert document["peak_rss_mib"] is None


def test_ceilings_are_measured_for_each_number_of_threads(moe):
    plan = replace(PLAN, threads=(1, 2), depths=(0,), generated=(), rounds=1)
    document = run_benchmark(moe.folder, plan)
    assert [one["threads"] for one in document["ceilings"]["by_threads"]] == [1, 2]
    assert document["ceilings"]["threads"] == 2
    assert [row["threads"] for row in document["rows"]] == [1, 2]


def test_what_does_not_fit_is_refused_before_anything_runs(moe, tmp_path):
    with pytest.raises(MobileMoEError, match=r"-p 9 at -d 120 needs a context of 129"):
        run_benchmark(moe.folder, replace(PLAN, depths=(120,)), pytest.fail)
    short = write(tmp_path / "short", replace(CONFIG, max_position_embeddings=25))
    with pytest.raises(MobileMoEError, match="max_position_embeddings of short"):
        run_benchmark(moe.folder, replace(PLAN, versus=str(short.folder)), pytest.fail)


def test_the_fp32_mode_is_held_against_the_fp32_peak(moe):
    plan = replace(PLAN, activations="fp32", depths=(0,), generated=(), rounds=1)
    document = run_benchmark(moe.folder, plan)
    (row,) = document["rows"]
    assert row["ceiling"] == "fp32_gmac_s"
    assert document["model"]["kv_format"] == "fp32"


def test_another_cache_is_measured_and_its_bytes_are_counted(moe):
    plan = replace(PLAN, depths=(20,), prompts=(), rounds=1, memory=False)
    int8, fp16 = (run_benchmark(moe.folder, replace(plan, kv=kv)) for kv in ("int8", "fp16"))
    assert (int8["model"]["kv_format"], fp16["model"]["kv_format"]) == ("int8", "fp16")
    (few,), (many,) = (document["rows"] for document in (int8, fp16))
    assert few["bytes_per_token"] < many["bytes_per_token"]


@pytest.mark.parametrize(
    ("missing", "package"), [("llama_cpp", "llama-cpp-python"), ("gguf", "gguf")]
)
def test_a_missing_package_is_named(moe, missing, package):
    if missing == "gguf" and find_spec("llama_cpp") is None:
        pytest.skip("llama-cpp-python is missing first")
    command = [sys.executable, "-c", WITHOUT, missing, str(moe.folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"--vs llama.cpp needs {package}, which is not installed" in done.stdout
    assert 'hint: pip install "mobilemoe[bench]"' in done.stdout


def test_llama_cpp_is_measured_in_turns_and_its_file_kept(moe, tmp_path):
    pytest.importorskip("llama_cpp")
    gguf = tmp_path / "kept.gguf"
    plan = replace(PLAN, versus="llama.cpp", gguf=gguf, memory=True)
    told: list[str] = []
    document = run_benchmark(moe.folder, plan, told.append)
    other = document["versus"]
    assert other["model"]["engine"] == "llama.cpp"
    assert [row["kind"] for row in other["rows"]] == ["prefill", "decode"] * 2
    for row, ours in zip(other["rows"], document["rows"], strict=True):
        assert "flash attention" in row["settings"]
        assert row["unique_experts_per_token"] == ours["unique_experts_per_token"]
    assert other["peak_rss"]["real_mib"] > 5
    assert any("rounding the experts" in line for line in told)
    written = gguf.stat().st_mtime_ns
    run_benchmark(moe.folder, replace(plan, memory=False, rounds=1), told.append)
    assert gguf.stat().st_mtime_ns == written


def test_a_gguf_file_of_another_checkpoint_is_refused(moe, tmp_path):
    pytest.importorskip("llama_cpp")
    other = write(tmp_path / "other", seed=1)
    assert fingerprint(open_checkpoint(other.folder)) != fingerprint(moe)
    plan = replace(PLAN, versus="llama.cpp", gguf=tmp_path / "x.gguf", depths=(0,), rounds=1)
    run_benchmark(other.folder, plan)
    with pytest.raises(MobileMoEError, match=r"x\.gguf was not made of"):
        run_benchmark(moe.folder, plan)
    (tmp_path / "x.gguf").write_bytes(b"GGUF of another kind")
    with pytest.raises(MobileMoEError, match=r"x\.gguf was not made of"):
        run_benchmark(moe.folder, plan)
