"""Parameters, bytes, KV cache and FLOPs against the published table and the files on disk."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import pytest

from mobilemoe import MobileMoEError, ModelConfig
from mobilemoe.presets import PRESETS
from mobilemoe.weights import Weight

DATA = Path(__file__).parents[1] / "data"


@pytest.mark.parametrize(
    ("name", "total_millions", "active_millions"),
    [("S", 1263.4, 272.5), ("M", 2818.4, 528.3), ("L", 5325.7, 921.7)],
)
def test_published_parameters(name: str, total_millions: float, active_millions: float) -> None:
    config = ModelConfig.preset(name)
    assert round(config.total_params / 1e6, 1) == total_millions
    assert round(config.active_params / 1e6, 1) == active_millions


def test_bytes_of_s_in_int4_are_those_of_the_released_file() -> None:
    tensors = ModelConfig.preset("S").weight_bytes("int4")
    assert round(tensors / 1e6, 2) == 713.86
    header = 713_916_240 - tensors
    assert 0 < header < 100_000


@pytest.mark.parametrize(
    ("name", "elements", "scales"), [("S", 10_240, 160), ("M", 13_312, 208), ("L", 16_384, 256)]
)
def test_kv_bytes(name: str, elements: int, scales: int) -> None:
    """INT8 has a float32 scale for the key and the value of each head."""
    config = ModelConfig.preset(name)
    assert config.kv_bytes_per_token("int8") == elements + 4 * scales
    assert config.kv_bytes_per_token("fp16") == config.kv_bytes_per_token("bf16") == 2 * elements
    assert config.kv_bytes_per_token("fp32") == 4 * elements


def test_flops_are_two_per_active_parameter() -> None:
    for config in PRESETS.values():
        assert config.flops_per_token == 2 * config.active_params


def test_active_params_by_hand() -> None:
    """All but the unused experts: three matrices of D x F for each of E - K, per layer."""
    config = ModelConfig.preset("nano")
    unused = config.num_local_experts - config.num_experts_per_tok
    per_expert = 3 * config.hidden_size * config.intermediate_size
    idle = config.num_hidden_layers * unused * per_expert
    assert config.active_params == config.total_params - idle


def test_an_untied_head_is_counted_in_full_and_its_embedding_by_the_row() -> None:
    tied = ModelConfig.preset("nano")
    untied = replace(tied, tie_word_embeddings=False)
    matrix = tied.vocab_size * tied.hidden_size
    assert untied.total_params == tied.total_params + matrix
    assert untied.active_params == tied.active_params + tied.hidden_size


def test_interleaving_makes_every_nth_layer_a_mixture() -> None:
    config = replace(ModelConfig.preset("nano"), interleave_moe_layer_step=2)
    assert [config.is_moe_layer(layer) for layer in range(4)] == [False, True, False, True]
    assert sum(weight.kind == "router" for weight in config.weights()) == 2


@pytest.mark.parametrize("field", ["weight_bytes", "kv_bytes_per_token"])
def test_unknown_formats_are_refused(field: str) -> None:
    with pytest.raises(MobileMoEError, match=r"_format is 'fp8'; allowed"):
        getattr(ModelConfig.preset("nano"), field)("fp8")


@pytest.mark.parametrize("name", ["S", "M", "L", "nano"])
def test_the_dense_twin_has_the_same_int4_bytes(name: str) -> None:
    config = ModelConfig.preset(name)
    twin = config.dense_twin()
    assert not twin.is_moe
    assert twin.active_params == twin.total_params
    assert twin.weight_bytes("int4") == pytest.approx(config.weight_bytes("int4"), rel=0.005)
    assert twin.vocab_size == config.vocab_size
    assert 3 <= twin.intermediate_size_mlp / twin.hidden_size <= 5


def read_header(folder: Path) -> dict[str, Any]:
    """Return the JSON header of a safetensors file, without its metadata."""
    raw = (folder / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header: dict[str, Any] = json.loads(raw[8 : 8 + length])
    header.pop("__metadata__", None)
    return header


def bf16_tensors(weight: Weight) -> dict[str, list[int]]:
    """Return the one tensor of an unquantised weight."""
    return {weight.name: list(weight.shape)}


def int4_tensors(weight: Weight) -> dict[str, list[int]]:
    """Return nibbles and scales of a quantised weight, as the format's table names them."""
    if weight.kind not in ("embedding", "linear", "expert"):
        return bf16_tensors(weight)
    if weight.kind == "expert":
        stem = weight.name.removesuffix("_proj")
        nibbles, scales = f"{stem}_qweight", f"{stem}_scale"
    else:
        stem = weight.name.removesuffix(".weight")
        nibbles, scales = f"{stem}.qweight", f"{stem}.weight_scale"
    *lead, last = weight.shape
    return {nibbles: [*lead, last // 2], scales: [*lead, last // 32]}


@pytest.mark.parametrize("name", ["tiny-bf16", "tiny-int4", "tiny-int4-hd64"])
def test_the_weight_list_is_that_of_the_file(name: str) -> None:
    values = json.loads((DATA / name / "config.json").read_text())
    config = ModelConfig.from_dict(values)
    stored = int4_tensors if "quantization" in values else bf16_tensors
    expected: dict[str, list[int]] = {}
    for weight in config.weights():
        expected |= stored(weight)
    header = read_header(DATA / name)
    assert {key: entry["shape"] for key, entry in header.items()} == expected
    end = max(entry["data_offsets"][1] for entry in header.values())
    assert config.weight_bytes("int4" if "quantization" in values else "bf16") == end


def test_total_params_are_the_elements_of_the_weights() -> None:
    for config in PRESETS.values():
        assert config.total_params == sum(prod(weight.shape) for weight in config.weights())


def test_presets_are_found_whatever_the_case_and_unknown_ones_listed() -> None:
    assert ModelConfig.preset("NANO") == ModelConfig.preset("nano")
    assert ModelConfig.preset("s") == PRESETS["S"]
    with pytest.raises(MobileMoEError, match="no preset called 'XL'; allowed: S, M, L, nano"):
        ModelConfig.preset("XL")


def test_bytes_of_a_step_of_s_by_hand() -> None:
    """INT4 has 4.5 bits a weight: 55.4 MB of head, 20 layers of 5.05 MB; routers are float32."""
    attention = 2 * 768 * 768 + 2 * 768 * 256
    expert, shared = 3 * 768 * 384, 3 * 768 * 1536
    small = 60 * 768 * 4 + 60 * 2 + 2 * 768 * 2  # router, bias, norms
    head = 128_256 * 768 * 9 // 16 + 768 * 2
    token = head + 20 * ((attention + 4 * expert + shared) * 9 // 16 + small)
    config = ModelConfig.preset("S")
    assert config.step_weight_bytes("int4") == token
    assert round(token / 1e6) == 156
    assert config.step_weight_bytes("int4", experts=60) == config.weight_bytes("int4")
    more = config.step_weight_bytes("int4", experts=4.5) - token
    assert more == 20 * expert * 9 // 16 // 2


def test_bytes_of_a_step_read_one_row_of_an_untied_embedding() -> None:
    tied = ModelConfig.preset("nano")
    untied = replace(tied, tie_word_embeddings=False)
    row = tied.hidden_size * 9 // 16
    assert untied.step_weight_bytes("int4") == tied.step_weight_bytes("int4") + row
    dense = ModelConfig.preset("mobilellm-pro")
    assert dense.step_weight_bytes("bf16") == dense.weight_bytes("bf16")


def test_multiply_adds_of_s_by_hand() -> None:
    """0.174 GMAC per token of a prompt; the head adds V D, attention 2 H d per position."""
    attention = 2 * 768 * 768 + 2 * 768 * 256
    layer = attention + 4 * 3 * 768 * 384 + 3 * 768 * 1536 + 60 * 768
    config = ModelConfig.preset("S")
    assert config.macs_per_token(head=False) == 20 * layer
    assert round(20 * layer / 1e9, 3) == 0.174
    assert config.macs_per_token() == 20 * layer + 128_256 * 768
    assert (
        config.macs_per_token(positions=100.5) == config.macs_per_token() + 20 * 2 * 768 * 201 // 2
    )
    untied = replace(config, tie_word_embeddings=False)
    assert untied.macs_per_token() == config.macs_per_token()
    assert untied.macs_per_token(head=False) == config.macs_per_token(head=False)
