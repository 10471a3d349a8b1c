"""Writing: what is read back, and what a failed write leaves behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from checkpoint_support import (
    CONFIGS,
    DATA,
    SMALLEST,
    folder_bytes,
    random_weights,
    weights_file,
    write_random,
)
from safetensors.torch import load_file

from mobilemoe.checkpoint import open_checkpoint, write_checkpoint
from mobilemoe.config import ModelConfig
from mobilemoe.errors import CheckpointError, MobileMoEError
from mobilemoe.quant import dequantize, pack, quantize, round_bf16
from mobilemoe.weights import QUANTIZED_KINDS

OLD, NEW = 1, 2  # seeds
FIRST_OF_KIND = {weight.kind: weight.name for weight in reversed(SMALLEST.weights())}


def bf16(values: np.ndarray) -> np.ndarray:
    return (round_bf16(values).astype(np.uint32) << 16).view(np.float32)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_bf16_round_trip_gives_the_rounded_weights(config, tmp_path):
    written = write_random(tmp_path / "model", config, "bf16")
    read_back = open_checkpoint(tmp_path / "model")
    assert read_back == written
    floats = random_weights(config)
    for weight, values in read_back.read_weights():
        assert np.array_equal(values, bf16(floats[weight.name])), weight.name


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_int4_round_trip_equals_the_reference_quantisation(config, tmp_path):
    write_random(tmp_path / "model", config, "int4")
    floats = random_weights(config)
    for weight, values in open_checkpoint(tmp_path / "model").read_weights():
        expected = floats[weight.name]
        if weight.kind in QUANTIZED_KINDS:
            expected = dequantize(*quantize(expected))
        elif weight.kind != "router":
            expected = bf16(expected)
        assert np.array_equal(values, expected), weight.name


def test_stored_int4_tensors_are_packed_integers_and_float16_scales(tmp_path):
    checkpoint = write_random(tmp_path / "model")
    raw, floats = checkpoint.tensors(), random_weights(SMALLEST)
    integers, scales = quantize(floats["model.layers.0.self_attn.q_proj.weight"])
    name = "model.layers.0.self_attn.q_proj"
    assert np.array_equal(raw.read(f"{name}.qweight"), pack(integers))
    assert np.array_equal(raw.read(f"{name}.weight_scale"), scales)
    integers, scales = quantize(floats["model.layers.0.feed_forward.experts.gate_up_proj"])
    name = "model.layers.0.feed_forward.experts.gate_up"
    assert np.array_equal(raw.read(f"{name}_qweight"), pack(integers))
    assert np.array_equal(raw.read(f"{name}_scale"), scales)


def test_rewriting_the_bf16_oracle_gives_the_same_tensor_bytes(tmp_path):
    source = open_checkpoint(DATA / "tiny-bf16")
    floats = {weight.name: values for weight, values in source.read_weights()}
    copy = write_checkpoint(tmp_path / "copy", source.config, "bf16", floats.__getitem__)
    theirs, ours = source.tensors(), copy.tensors()
    for weight in source.config.weights():
        if theirs.entries[weight.name].dtype == "BF16":
            expected = theirs.read(weight.name)
        else:
            expected = round_bf16(theirs.read_float32(weight.name))
        assert np.array_equal(ours.read(weight.name), expected), weight.name


def test_same_weights_give_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_random(tmp_path / name, tokenizer_json='{"x": 1}', chat=True)
    assert folder_bytes(tmp_path / "a") == folder_bytes(tmp_path / "b")


def test_other_libraries_read_the_file(tmp_path):
    checkpoint = write_random(tmp_path / "model")
    tensors = load_file(weights_file(checkpoint))
    assert set(tensors) == set(checkpoint.tensors().entries)


def test_config_json_is_in_the_released_form(tmp_path):
    write_random(tmp_path / "int4")
    write_random(tmp_path / "bf16", weight_format="bf16")
    int4, bf16 = (
        json.loads((tmp_path / name / "config.json").read_text()) for name in ("int4", "bf16")
    )
    released = json.loads((DATA / "tiny-int4" / "config.json").read_text())
    assert int4.pop("quantization") == released["quantization"]
    assert int4 == bf16
    assert set(released) - set(int4) == {"quantization", "attention_dropout"}
    assert int4["eos_token_id"] == [0]
    assert int4["architectures"] == ["MobileMoEForCausalLM"]


def test_tokenizer_files_are_written_on_request(tmp_path):
    assert set(folder_bytes(write_random(tmp_path / "none").folder)) == {
        "config.json",
        "model.safetensors",
    }
    chat = folder_bytes(write_random(tmp_path / "chat", tokenizer_json="{}", chat=True).folder)
    base = folder_bytes(write_random(tmp_path / "base", tokenizer_json="{}").folder)
    assert chat["tokenizer.json"] == base["tokenizer.json"] == b"{}"
    chat_settings, base_settings = (json.loads(f["tokenizer_config.json"]) for f in (chat, base))
    assert chat_settings["clean_up_tokenization_spaces"] is False
    assert "chat_template" in chat_settings
    assert "chat_template" not in base_settings


@pytest.mark.parametrize("weight_format", ["int4", "bf16"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", FIRST_OF_KIND.values(), ids=FIRST_OF_KIND)
def test_rejects_weights_that_diverged_and_keeps_the_old_checkpoint(
    tmp_path, name, bad, weight_format
):
    write_random(tmp_path / "model", seed=OLD)
    before = folder_bytes(tmp_path / "model")
    weights = random_weights(SMALLEST, NEW)
    weights[name].flat[-1] = bad
    with pytest.raises(MobileMoEError, match=f"cannot write {name}.*NaN or infinite"):
        write_checkpoint(tmp_path / "model", SMALLEST, weight_format, weights.__getitem__)
    assert folder_bytes(tmp_path / "model") == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_reader_that_fails_at_any_weight_keeps_the_old_checkpoint(tmp_path):
    write_random(tmp_path / "model", seed=OLD)
    before, weights = folder_bytes(tmp_path / "model"), random_weights(SMALLEST, NEW)
    for broken in weights:

        def read(name: str, broken: str = broken) -> np.ndarray:
            if name == broken:
                raise RuntimeError(name)
            return weights[name]

        with pytest.raises(RuntimeError, match=broken):
            write_checkpoint(tmp_path / "model", SMALLEST, "int4", read)
        assert folder_bytes(tmp_path / "model") == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert all(np.isfinite(v).all() for _, v in open_checkpoint(tmp_path / "model").read_weights())


FULL_DISK = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from checkpoint_support import SMALLEST, folder_bytes, write_random
from mobilemoe.checkpoint import open_checkpoint
from mobilemoe.errors import MobileMoEError

folder = Path(sys.argv[2]) / "model"
write_random(folder, seed=1, tokenizer_json="{}")
before = folder_bytes(folder)
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
size = (folder / "model.safetensors").stat().st_size
refused = 0
for limit in [0, 1, 7, 8, 9, *range(10, size, 331), size - 1]:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        write_random(folder, seed=2, tokenizer_json="{}")
    except MobileMoEError as error:
        assert "File too large" in str(error), error
        refused += 1
    else:
        raise AssertionError(limit)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert folder_bytes(folder) == before, limit
    assert [path.name for path in folder.parent.iterdir()] == ["model"], limit
assert len(list(open_checkpoint(folder).read_weights())) == len(SMALLEST.weights())
write_random(folder, seed=2, tokenizer_json="{}")
assert folder_bytes(folder) != before
print(refused)
"""


def test_a_disk_that_fills_up_at_any_byte_keeps_the_old_checkpoint(tmp_path):
    here = str(DATA.parent / "checkpoint")
    command = [sys.executable, "-c", FULL_DISK, here, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 20


KILLED = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from checkpoint_support import SMALLEST, random_weights
from mobilemoe.checkpoint import write_checkpoint

weights = random_weights(SMALLEST, 2)

def read(name):
    if name == sys.argv[3]:
        os._exit(9)
    return weights[name]

write_checkpoint(Path(sys.argv[2]), SMALLEST, "int4", read)
"""


def test_a_killed_writer_leaves_the_old_checkpoint(tmp_path):
    write_random(tmp_path / "model", seed=OLD)
    before = folder_bytes(tmp_path / "model")
    here = str(DATA.parent / "checkpoint")
    last = SMALLEST.weights()[-1].name
    command = [sys.executable, "-c", KILLED, here, str(tmp_path / "model"), last]
    assert subprocess.run(command).returncode == 9
    assert folder_bytes(tmp_path / "model") == before
    write_random(tmp_path / "model", seed=NEW)  # what the dead writer left is not in the way
    assert folder_bytes(tmp_path / "model") != before


FOREIGN = {
    "a thesis": {"thesis.txt": "years of work"},
    "a web app": {"config.json": '{"name": "webapp"}'},
    "another model": {"config.json": '{"model_type": "llama"}', "model.safetensors": ""},
    "a damaged config": {"config.json": "{"},
    "a folder": {"sub/file": ""},
    "notes": {"config.json": '{"model_type": "mobilemoe"}', "notes.md": "kept for years"},
    "weights alone": {"model.safetensors": ""},
    "odd weights": {"config.json": '{"model_type": "mobilemoe"}', "my.safetensors": ""},
}


@pytest.mark.parametrize("files", FOREIGN.values(), ids=FOREIGN)
def test_a_folder_of_other_files_is_never_replaced(tmp_path: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)

    def never(name: str) -> np.ndarray:
        raise AssertionError(name)

    with pytest.raises(CheckpointError, match="would be replaced as a whole, and it holds"):
        write_checkpoint(tmp_path, ModelConfig.preset("nano"), "bf16", never)
    for name, text in files.items():
        assert (tmp_path / name).read_text() == text


def test_an_empty_current_folder_is_filled(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    written = write_random(Path())
    assert sorted(path.name for path in Path().iterdir()) == ["config.json", "model.safetensors"]
    assert written.tensors().tensor_bytes == SMALLEST.weight_bytes("int4")


FEW_DESCRIPTORS = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from checkpoint_support import SMALLEST
from mobilemoe.checkpoint import init_checkpoint

used = len(list(Path("/dev/fd").iterdir()))
resource.setrlimit(resource.RLIMIT_NOFILE, (used + 4, used + 4))
init_checkpoint(Path(sys.argv[2]) / "model", SMALLEST, "int4", 0, shard_bytes=1)
"""


def test_writing_many_shards_takes_few_descriptors(tmp_path: Path) -> None:
    here = str(DATA.parent / "checkpoint")
    command = [sys.executable, "-c", FEW_DESCRIPTORS, here, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert len(open_checkpoint(tmp_path / "model").shards) > 20
