"""Conversion: the reference rounding, the measured error, and nothing left out or behind."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from checkpoint_support import CONFIGS, DATA, SMALLEST, folder_bytes, join, split, write_random

from mobilemoe.checkpoint import convert_checkpoint, open_checkpoint
from mobilemoe.errors import CheckpointError, MobileMoEError
from mobilemoe.quant import dequantize, pack, quantize
from mobilemoe.weights import QUANTIZED_KINDS


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_to_int4_equals_the_reference_quantisation_of_every_weight(config, tmp_path):
    source = write_random(tmp_path / "bf16", config, "bf16")
    result = convert_checkpoint(source, tmp_path / "int4", "int4")
    assert result.checkpoint == open_checkpoint(tmp_path / "int4")
    changed = {error.name: error for error in result.errors}
    converted = dict(result.checkpoint.read_weights())
    for weight, values in source.read_weights():
        quantized = weight.kind in QUANTIZED_KINDS
        expected = dequantize(*quantize(values)) if quantized else values
        assert np.array_equal(converted[weight], expected), weight.name
        assert (weight.name in changed) == quantized, weight.name
    assert result.unchanged + len(changed) == len(config.weights())
    assert result.bytes_before == config.weight_bytes("bf16")
    assert result.bytes_after == config.weight_bytes("int4")


def test_the_errors_are_those_of_the_values(tmp_path):
    source = write_random(tmp_path / "bf16", weight_format="bf16")
    result = convert_checkpoint(source, tmp_path / "int4", "int4")
    before, after = dict(source.read_weights()), dict(result.checkpoint.read_weights())
    by_name = {weight.name: weight for weight in before}
    changed = [by_name[error.name] for error in result.errors]
    for weight, error in zip(changed, result.errors, strict=True):
        old, new = before[weight].astype(np.float64), after[weight].astype(np.float64)
        assert error.shape == weight.shape
        relative = np.linalg.norm(new - old) / np.linalg.norm(old)
        assert error.relative_error == pytest.approx(relative, rel=1e-12)
        assert error.largest_error == np.abs(new - old).max()
        assert 0.08 < relative < 0.11  # normal weights in groups of 32
    old, new = (np.concatenate([w[x].ravel() for x in changed]) for w in (before, after))
    total = np.linalg.norm((new - old).astype(np.float64)) / np.linalg.norm(old.astype(np.float64))
    assert result.relative_error == pytest.approx(total, rel=1e-5)


def test_to_bf16_rounds_the_int4_values(tmp_path):
    source = open_checkpoint(DATA / "tiny-int4")
    result = convert_checkpoint(source, tmp_path / "bf16", "bf16")
    after = dict(result.checkpoint.read_weights())
    for weight, values in source.read_weights():
        bound = 2.0**-8 * np.abs(values)  # half a unit in the last place of 8 bits
        assert (np.abs(after[weight] - values) <= bound).all(), weight.name
    assert "quantization" not in json.loads((tmp_path / "bf16" / "config.json").read_text())


def test_the_oracles_bf16_weights_become_the_reference_int4(tmp_path):
    source = open_checkpoint(DATA / "tiny-bf16")
    tensors = convert_checkpoint(source, tmp_path / "int4", "int4").checkpoint.tensors()
    expected = source.tensors().read_float32("model.layers.1.feed_forward.experts.down_proj")
    integers, scales = quantize(expected)
    name = "model.layers.1.feed_forward.experts.down"
    assert np.array_equal(tensors.read(f"{name}_qweight"), pack(integers))
    assert np.array_equal(tensors.read(f"{name}_scale"), scales)


@pytest.mark.parametrize("name", ["tiny-int4", "tiny-bf16"])
def test_the_same_format_keeps_every_bit(name, tmp_path):
    source = open_checkpoint(DATA / name)
    result = convert_checkpoint(source, tmp_path / "copy", source.weight_format)
    before, after = source.tensors(), result.checkpoint.tensors()
    for tensor, entry in after.entries.items():
        assert entry.dtype == before.entries[tensor].dtype
        assert np.array_equal(after.read(tensor), before.read(tensor)), tensor
    assert result.errors == ()
    assert result.relative_error == 0


def test_config_and_companions_go_along(tmp_path):
    source = write_random(tmp_path / "bf16", weight_format="bf16", tokenizer_json="{}", chat=True)
    texts = {
        "generation_config.json": b'{"eos_token_id": [0]}',
        "LICENSE": b"terms",
        "chat_template.jinja": b"{{ x }}",
        "pytorch_model.bin": b"pickle",
        "modeling_x.py": b"raise SystemExit",
    }
    for name, text in texts.items():
        (source.folder / name).write_bytes(text)
    values = json.loads((source.folder / "config.json").read_text()) | {"pad_token_id": 7}
    (source.folder / "config.json").write_text(json.dumps(values))
    convert_checkpoint(open_checkpoint(source.folder), tmp_path / "int4", "int4")
    before, after = folder_bytes(source.folder), folder_bytes(tmp_path / "int4")
    kept = ("tokenizer.json", "tokenizer_config.json", *list(texts)[:3])
    assert set(after) == {"config.json", "model.safetensors", *kept}
    for name in kept:
        assert after[name] == before[name]
    converted = json.loads(after["config.json"])
    assert converted.pop("quantization")["format"] == "mobilemoe-int4-g32"
    assert converted == values


def test_experts_under_other_names_or_shapes_are_refused_not_skipped(tmp_path):
    source = write_random(tmp_path / "bf16", weight_format="bf16")
    path = source.folder / "model.safetensors"
    intact = path.read_bytes()
    name = "model.layers.0.feed_forward.experts.gate_up_proj"
    for edit, message in (
        (lambda entry: entry.update(shape=[3, 64, 32]), "allowed: BF16 [3, 32, 64]"),
        (None, f"tensor {name} is missing"),
    ):
        header, data = split(intact)
        if edit is None:
            header["model.layers.0.feed_forward.experts.0.gate_up_proj"] = header.pop(name)
        else:
            edit(header[name])
        path.write_bytes(join(header, data))
        with pytest.raises(CheckpointError) as caught:
            convert_checkpoint(source, tmp_path / "int4", "int4")
        assert message in str(caught.value)
        assert not (tmp_path / "int4").exists()


def test_it_never_replaces_its_own_source(tmp_path):
    source = write_random(tmp_path / "model", weight_format="bf16")
    before = folder_bytes(source.folder)
    (tmp_path / "link").symlink_to(source.folder)
    for folder in (source.folder, tmp_path / "link", tmp_path / "x" / ".." / "model"):
        with pytest.raises(MobileMoEError, match="is the source itself"):
            convert_checkpoint(source, folder, "int4")
    assert folder_bytes(source.folder) == before


def test_it_never_replaces_a_folder_that_holds_its_source(tmp_path):
    outer = write_random(tmp_path / "outer", weight_format="bf16")
    source = write_random(outer.folder / "inner", weight_format="bf16")
    linked = tmp_path / "linked"
    linked.mkdir()
    for path in outer.folder.iterdir():
        (linked / path.name).symlink_to(path)
    for checkpoint in (source, open_checkpoint(linked)):
        with pytest.raises(MobileMoEError, match="is the source itself, or holds it"):
            convert_checkpoint(checkpoint, outer.folder, "int4")
    assert source.tensors().tensor_bytes == SMALLEST.weight_bytes("bf16")


def with_float32_routers(checkpoint):
    """Rewrite a BF16 file so that its routers are F32 values that BF16 cannot hold."""
    path = checkpoint.folder / "model.safetensors"
    header, data = split(path.read_bytes())
    parts, end = [], 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, stop = entry["data_offsets"]
        part = data[begin:stop]
        if name.endswith("router.weight"):
            part = np.linspace(0.1, 0.2, len(part) // 2, dtype=np.float32).tobytes()
            entry["dtype"] = "F32"
        entry["data_offsets"] = [end, end + len(part)]
        parts.append(part)
        end += len(part)
    path.write_bytes(join(header, b"".join(parts)))


def test_other_shards_keep_a_float32_router_and_rounding_one_is_said(tmp_path):
    source = write_random(tmp_path / "bf16", weight_format="bf16")
    with_float32_routers(source)
    result = convert_checkpoint(source, tmp_path / "shards", "bf16", 2000)
    before, after = source.tensors(), result.checkpoint.tensors()
    for name, entry in before.entries.items():
        assert after.dtype(name) == entry.dtype
        assert np.array_equal(after.read(name), before.read(name)), name
    assert result.errors == ()
    assert result.bytes_after == result.bytes_before == before.tensor_bytes
    int4 = convert_checkpoint(source, tmp_path / "int4", "int4")
    assert not [error for error in int4.errors if "router" in error.name]
    back = convert_checkpoint(int4.checkpoint, tmp_path / "back", "bf16")
    (router,) = [error for error in back.errors if "router" in error.name]
    assert 0 < router.relative_error < 2**-8


def test_a_source_that_shrinks_meanwhile_is_an_error_and_leaves_nothing(tmp_path):
    source = write_random(tmp_path / "model", weight_format="bf16")
    path = source.folder / "model.safetensors"
    size = path.stat().st_size

    def shrink(done: int, total: int) -> None:
        with path.open("r+b") as file:
            file.truncate(size // 2)

    with pytest.raises(CheckpointError, match="was truncated while in use"):
        convert_checkpoint(source, tmp_path / "out", "int4", progress=shrink)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model"]


def test_progress_counts_every_byte(tmp_path):
    source = write_random(tmp_path / "model", weight_format="bf16")
    seen = []
    convert_checkpoint(source, tmp_path / "out", "int4", progress=lambda *s: seen.append(s))
    assert {total for _, total in seen} == {SMALLEST.weight_bytes("int4")}
    done = [bytes_done for bytes_done, _ in seen]
    assert done == sorted(done)
    assert done[-1] == SMALLEST.weight_bytes("int4")


MEMORY = """
import sys
from dataclasses import replace
from pathlib import Path
from mobilemoe.checkpoint import convert_checkpoint, init_checkpoint
from mobilemoe.config import ModelConfig
from mobilemoe.profile.memory import peak_rss_mib

config = replace(ModelConfig.preset("L"), num_hidden_layers=1, vocab_size=64_000,
                 bos_token_id=0, eos_token_id=(1,))
folder = Path(sys.argv[1])
source = init_checkpoint(folder / "int4", config, "int4", 0)
before = peak_rss_mib()
wide = convert_checkpoint(source, folder / "bf16", "bf16").checkpoint
convert_checkpoint(wide, folder / "again", "int4")
print(peak_rss_mib() - before)
"""


def test_memory_does_not_follow_the_largest_tensor(tmp_path):
    command = [sys.executable, "-c", MEMORY, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 64
