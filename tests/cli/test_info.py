"""`mobilemoe info`: the JSON contract, the plain words, and the refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mobilemoe import ModelConfig

from .conftest import Run, small_config

DATA = Path(__file__).parents[1] / "data"
SIZES = (
    "total_params",
    "active_params",
    "weight_bytes",
    "kv_bytes_per_token",
    "flops_per_token",
)


@pytest.mark.parametrize("name", ["S", "nano", "mobilellm-pro"])
def test_json_of_a_preset(run: Run, name: str) -> None:
    done = run("info", name, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    config = ModelConfig.preset(name)
    assert {key: document[key] for key in SIZES} == {
        "total_params": config.total_params,
        "active_params": config.active_params,
        "weight_bytes": {"bf16": config.weight_bytes("bf16"), "int4": config.weight_bytes("int4")},
        "kv_bytes_per_token": {
            name: config.kv_bytes_per_token(name) for name in ("int8", "fp16", "fp32")
        },
        "flops_per_token": config.flops_per_token,
    }
    assert document["file_bytes"] is None
    assert document["weight_format"] is None
    assert document["shape"]["hidden_size"] == config.hidden_size
    assert (document["dense_twin"] is None) == (not config.is_moe)


@pytest.mark.parametrize(("name", "weight_format"), [("tiny-int4", "int4"), ("tiny-bf16", "bf16")])
def test_json_of_a_checkpoint(run: Run, name: str, weight_format: str) -> None:
    done = run("info", DATA / name, "--json")
    assert done.returncode == 0
    document = json.loads(done.stdout)
    size = (DATA / name / "model.safetensors").stat().st_size
    assert (document["name"], document["weight_format"]) == (name, weight_format)
    assert document["file_bytes"] == size
    header = size - document["weight_bytes"][weight_format]
    assert 0 < header < 20_000


def test_text_explains_a_mixture(run: Run, chat_model: Path) -> None:
    done = run("info", chat_model, COLUMNS="200")
    config = small_config()
    assert done.returncode == 0
    assert "12 experts of width 32 in each of 2 layers; a token uses the best 4" in done.stdout
    assert "a shared expert of width 128" in done.stdout
    assert "dense twin" in done.stdout
    assert f"memory at {config.max_position_embeddings:,} tokens" in done.stdout
    assert "file on disk" in done.stdout


def test_text_explains_a_dense_model(run: Run) -> None:
    done = run("info", "mobilellm-pro", COLUMNS="200")
    assert "dense model" in done.stdout
    assert "twin" not in done.stdout
    assert "nothing" in done.stdout


def test_missing_weights_are_an_error(run: Run, tmp_path: Path) -> None:
    shutil.copy(DATA / "tiny-int4" / "config.json", tmp_path)
    done = run("info", tmp_path, "--json")
    assert (done.returncode, done.stdout) == (1, "")
    assert "model.safetensors" in done.stderr
