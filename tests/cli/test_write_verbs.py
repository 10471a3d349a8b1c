"""`init` and `convert`: what they write and print, and what an end in the middle leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from mobilemoe import ModelConfig
from mobilemoe.checkpoint import ChatFormat, Tokenizer, open_checkpoint

from .conftest import COMMAND, Run


@pytest.fixture(scope="module")
def bf16(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random nano weights in BF16."""
    folder = tmp_path_factory.mktemp("write") / "bf16"
    assert run("init", "--preset", "nano", "--format", "bf16", folder).returncode == 0
    return folder


@pytest.mark.parametrize("weight_format", ["int4", "bf16"])
def test_init_writes_a_model_that_generates(run: Run, tmp_path: Path, weight_format: str) -> None:
    done = run("init", "--preset", "nano", "--format", weight_format, tmp_path / "new", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["tensor_bytes"] == document["planned_tensor_bytes"]
    assert document["total_params"] == ModelConfig.preset("nano").total_params
    assert ChatFormat.from_folder(tmp_path / "new").template
    assert Tokenizer.from_folder(tmp_path / "new").encode("Hi")
    done = run("generate", tmp_path / "new", "--prompt", "Hi", "--max-new-tokens", "3", "--json")
    assert len(json.loads(done.stdout)["token_ids"]) == 3


def test_init_writes_the_dense_twin(run: Run, tmp_path: Path) -> None:
    done = run("init", "--preset", "nano", "--dense-twin", tmp_path / "twin")
    assert done.returncode == 0, done.stderr
    assert open_checkpoint(tmp_path / "twin").config == ModelConfig.preset("nano").dense_twin()


def test_convert_prints_every_changed_tensor_and_the_total(
    run: Run, bf16: Path, tmp_path: Path
) -> None:
    done = run("convert", bf16, tmp_path / "int4", "--format", "int4")
    assert done.returncode == 0, done.stderr
    config = ModelConfig.preset("nano")
    kinds = ("embedding", "linear", "expert")
    for weight in config.weights():
        shape = " x ".join(map(str, weight.shape))
        listed = any(weight.name in line and shape in line for line in done.stdout.splitlines())
        assert listed == (weight.kind in kinds), weight.name
    assert "all changed weights together: relative error 9." in done.stdout
    assert "tensors kept their values" in done.stdout


def test_convert_as_json_and_in_shards(run: Run, bf16: Path, tmp_path: Path) -> None:
    arguments = ("--format", "int4", "--shard-size", "1MB", "--json")
    done = run("convert", bf16, tmp_path / "int4", *arguments)
    document = json.loads(done.stdout)
    assert document["files"] == len(open_checkpoint(tmp_path / "int4").shards) > 3
    assert 0.08 < document["relative_error"] < 0.11
    assert {error["name"] for error in document["errors"]} > {"model.embed_tokens.weight"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_end_in_the_middle_leaves_nothing(tmp_path: Path, number: int) -> None:
    with subprocess.Popen(
        [COMMAND, "init", "--preset", "S", str(tmp_path / "new")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        deadline = time.monotonic() + 60
        while not any(tmp_path.glob(".new.*/model.safetensors")):
            assert time.monotonic() < deadline, "it never began to write"
            time.sleep(0.02)
        os.kill(process.pid, number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert (out, b"Traceback" in err) == (b"", False)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_something_else_is_not_replaced(run: Run, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"name": "webapp"}')
    (tmp_path / "thesis.txt").write_text("precious")
    done = run("init", "--preset", "nano", tmp_path)
    assert done.returncode == 1
    assert "it holds thesis.txt" in done.stderr
    assert (tmp_path / "thesis.txt").read_text() == "precious"


def test_too_many_open_files_is_no_damaged_file(bf16: Path, run: Run, tmp_path: Path) -> None:
    arguments = ("--format", "bf16", "--shard-size", "1kB")
    assert run("convert", bf16, tmp_path / "many", *arguments).returncode == 0
    command = f"ulimit -n 40; exec {COMMAND} generate {tmp_path / 'many'} --prompt x"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Too many open files" in done.stderr
    assert "ulimit -n" in done.stderr
    assert "damaged" not in done.stderr


def test_the_config_of_a_plan_becomes_a_checkpoint(run: Run, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    assert run("plan", "--config", config).returncode == 0
    described = run("info", config, "--json")
    assert described.returncode == 0, described.stderr
    done = run("init", "--config", config, tmp_path / "new", "--json")
    assert done.returncode == 0, done.stderr
    planned, written = json.loads(described.stdout), json.loads(done.stdout)
    assert written["tensor_bytes"] == planned["weight_bytes"]["int4"]
    assert open_checkpoint(tmp_path / "new").config == ModelConfig.preset("nano")


def test_init_needs_exactly_one_shape(run: Run, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text("{}")
    for shape in ((), ("--preset", "nano", "--config", config)):
        done = run("init", *shape, tmp_path / "new")
        assert done.returncode == 2
        assert "give either --preset or --config" in done.stderr
    done = run("init", "--config", config, tmp_path / "new")
    assert done.returncode == 1 and "model_type" in done.stderr
    assert not (tmp_path / "new").exists()
