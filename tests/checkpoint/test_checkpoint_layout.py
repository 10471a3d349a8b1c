"""Names, dtypes and shapes of the released files, spelled out."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from checkpoint_support import CONFIGS, DATA, weights_file
from safetensors import safe_open

from mobilemoe.checkpoint import open_checkpoint
from mobilemoe.checkpoint.header import encode_header
from mobilemoe.checkpoint.layout import file_layout
from mobilemoe.config import ModelConfig

LAYER_INT4 = {
    "input_layernorm.weight": ("BF16", [768]),
    "self_attn.q_proj.qweight": ("U8", [768, 384]),
    "self_attn.q_proj.weight_scale": ("F16", [768, 24]),
    "self_attn.k_proj.qweight": ("U8", [256, 384]),
    "self_attn.k_proj.weight_scale": ("F16", [256, 24]),
    "self_attn.v_proj.qweight": ("U8", [256, 384]),
    "self_attn.v_proj.weight_scale": ("F16", [256, 24]),
    "self_attn.o_proj.qweight": ("U8", [768, 384]),
    "self_attn.o_proj.weight_scale": ("F16", [768, 24]),
    "post_attention_layernorm.weight": ("BF16", [768]),
    "feed_forward.router.weight": ("F32", [60, 768]),
    "feed_forward.expert_bias": ("BF16", [60]),
    "feed_forward.experts.gate_up_qweight": ("U8", [60, 768, 384]),
    "feed_forward.experts.gate_up_scale": ("F16", [60, 768, 24]),
    "feed_forward.experts.down_qweight": ("U8", [60, 384, 384]),
    "feed_forward.experts.down_scale": ("F16", [60, 384, 24]),
    "feed_forward.shared_expert.gate_proj.qweight": ("U8", [1536, 384]),
    "feed_forward.shared_expert.gate_proj.weight_scale": ("F16", [1536, 24]),
    "feed_forward.shared_expert.up_proj.qweight": ("U8", [1536, 384]),
    "feed_forward.shared_expert.up_proj.weight_scale": ("F16", [1536, 24]),
    "feed_forward.shared_expert.down_proj.qweight": ("U8", [768, 768]),
    "feed_forward.shared_expert.down_proj.weight_scale": ("F16", [768, 48]),
}
ENDS_INT4 = {
    "model.embed_tokens.qweight": ("U8", [128256, 384]),
    "model.embed_tokens.weight_scale": ("F16", [128256, 24]),
    "model.norm.weight": ("BF16", [768]),
}
LAYER_BF16 = {
    "input_layernorm.weight": [768],
    "self_attn.q_proj.weight": [768, 768],
    "self_attn.k_proj.weight": [256, 768],
    "self_attn.v_proj.weight": [256, 768],
    "self_attn.o_proj.weight": [768, 768],
    "post_attention_layernorm.weight": [768],
    "feed_forward.router.weight": [60, 768],
    "feed_forward.expert_bias": [60],
    "feed_forward.experts.gate_up_proj": [60, 768, 768],
    "feed_forward.experts.down_proj": [60, 384, 768],
    "feed_forward.shared_expert.gate_proj.weight": [1536, 768],
    "feed_forward.shared_expert.up_proj.weight": [1536, 768],
    "feed_forward.shared_expert.down_proj.weight": [768, 1536],
}
TINY = {
    "tiny-int4": ("int4", 512, 3),
    "tiny-bf16": ("bf16", 512, 3),
    "tiny-int4-hd64": ("int4", 256, 2),
}


def header_of(weight_format) -> dict:
    encoded = encode_header(file_layout(ModelConfig.preset("S"), weight_format))
    assert int.from_bytes(encoded[:8], "little") == len(encoded) - 8
    assert len(encoded) % 8 == 0
    return json.loads(encoded[8:])


def test_s_qat_has_the_released_names_dtypes_and_shapes():
    expected = dict(ENDS_INT4)
    for layer in range(20):
        expected |= {f"model.layers.{layer}.{name}": value for name, value in LAYER_INT4.items()}
    header = header_of("int4")
    assert {name: (e["dtype"], e["shape"]) for name, e in header.items()} == expected


def test_s_base_has_the_released_names_and_shapes_in_bf16():
    expected = {"model.embed_tokens.weight": [128256, 768], "model.norm.weight": [768]}
    for layer in range(20):
        expected |= {f"model.layers.{layer}.{name}": value for name, value in LAYER_BF16.items()}
    header = header_of("bf16")
    assert {name: e["shape"] for name, e in header.items()} == expected
    assert {e["dtype"] for e in header.values()} == {"BF16"}


def test_s_qat_tensors_add_up_to_the_released_file():
    header = header_of("int4")
    end = 0
    for entry in header.values():  # one after the other, without a gap
        start, stop = entry["data_offsets"]
        assert start == end
        end = stop
    assert end == ModelConfig.preset("S").weight_bytes("int4")
    assert round(end / 1e6, 2) == 713.86
    released_file = 713_916_240
    assert 0 < released_file - end < 100_000  # what is left is their header


@pytest.mark.parametrize("name", TINY)
def test_tiny_folders_open_with_the_expected_config(name):
    weight_format, vocab, layers = TINY[name]
    checkpoint = open_checkpoint(DATA / name)
    assert checkpoint.weight_format == weight_format
    assert checkpoint.config.vocab_size == vocab
    assert checkpoint.config.num_hidden_layers == layers
    assert checkpoint.config.eos_token_id == (2, 3)
    assert checkpoint.config.rope_scaling_factor == 16
    file = checkpoint.tensors()
    assert file.tensor_bytes == checkpoint.config.weight_bytes(weight_format)
    size = weights_file(checkpoint).stat().st_size
    assert size == file.header_bytes + file.tensor_bytes == file.file_bytes


@pytest.mark.parametrize("name", TINY)
def test_tensors_are_those_that_the_safetensors_library_reads(name):
    checkpoint = open_checkpoint(DATA / name)
    file = checkpoint.tensors()
    with safe_open(weights_file(checkpoint), framework="pt") as reference:
        assert set(reference.keys()) == set(file.entries)
        for tensor in file.entries:
            expected = reference.get_tensor(tensor)
            assert tuple(expected.shape) == file.entries[tensor].shape
            as_bytes = file.read(tensor).copy().view(np.uint8).ravel()
            assert np.array_equal(as_bytes, expected.view(dtype=torch.uint8).numpy().ravel())
            if file.entries[tensor].dtype != "U8":
                assert np.array_equal(file.read_float32(tensor), expected.float().numpy())


@pytest.mark.parametrize("name", TINY)
def test_every_weight_is_read_once_in_its_shape(name):
    checkpoint = open_checkpoint(DATA / name)
    weights = [(weight, values) for weight, values in checkpoint.read_weights()]
    assert tuple(weight for weight, _ in weights) == checkpoint.config.weights()
    for weight, values in weights:
        assert values.shape == weight.shape
        assert values.dtype == np.float32
        assert np.isfinite(values).all()


def test_an_int4_weight_is_nibble_times_scale_of_its_group():
    checkpoint = open_checkpoint(DATA / "tiny-int4")
    file = checkpoint.tensors()
    name = "model.layers.1.feed_forward.experts.down"
    packed, scales = file.read(f"{name}_qweight"), file.read(f"{name}_scale")
    weights = {w.name: values for w, values in checkpoint.read_weights()}
    values = weights[f"{name}_proj"]
    for e, i, o in [(0, 0, 0), (0, 0, 1), (3, 7, 33), (11, 63, 127), (5, 31, 64)]:
        byte = int(packed[e, i, o // 2])
        nibble = byte & 15 if o % 2 == 0 else byte >> 4
        integer = nibble - 16 if nibble > 7 else nibble
        assert values[e, i, o] == np.float32(integer) * np.float32(scales[e, i, o // 32])


@pytest.mark.parametrize("weight_format", ["int4", "bf16"])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_layout_holds_the_bytes_that_the_config_predicts(config, weight_format):
    layout = file_layout(config, weight_format)
    assert sum(tensor.nbytes for tensor in layout) == config.weight_bytes(weight_format)
    assert len({tensor.name for tensor in layout}) == len(layout)
