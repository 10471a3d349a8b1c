"""Predicted bytes are the file's bytes, and counting by layers is counting by tensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilemoe import ModelConfig
from mobilemoe.checkpoint import init_checkpoint, open_checkpoint
from mobilemoe.checkpoint.header import encode_header
from mobilemoe.checkpoint.layout import file_layout
from mobilemoe.checkpoint.write import config_values
from mobilemoe.config import KvFormat
from mobilemoe.plan import Constraints, plan
from mobilemoe.plan.search.counts import count, counted, sound_shapes
from mobilemoe.presets import PRESETS
from mobilemoe.weights import WeightFormat

GRANULARITIES, FORMS = (4, 8, 16), (True, False)


def hollow(folder: Path, config: ModelConfig, weight_format: WeightFormat, size: int) -> Path:
    """Write a checkpoint with the writer's header and `size` bytes of holes for the tensors."""
    folder.mkdir()
    header = encode_header(file_layout(config, weight_format))
    with (folder / "model.safetensors").open("wb") as file:
        file.write(header)
        file.truncate(len(header) + size)
    values = config_values(config.to_dict(), weight_format)
    (folder / "config.json").write_text(json.dumps(values))
    return folder


@pytest.mark.parametrize("weight_format", ["int4", "bf16"])
@pytest.mark.parametrize("name", PRESETS)
def test_the_bytes_of_every_preset_are_those_of_its_file(
    tmp_path: Path, name: str, weight_format: WeightFormat
) -> None:
    """The reader takes a file only if its tensors fill it to the byte; holes take no disk."""
    config = PRESETS[name]
    size = config.weight_bytes(weight_format)
    opened = open_checkpoint(hollow(tmp_path / "right", config, weight_format, size))
    assert opened.tensors().tensor_bytes == size
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        open_checkpoint(hollow(tmp_path / "wrong", config, weight_format, size + 1)).tensors()


@pytest.mark.parametrize("twin", [False, True])
def test_a_planned_model_weighs_in_its_file_what_the_plan_says(tmp_path: Path, twin: bool) -> None:
    limits = Constraints(1_500_000 if twin else 3_000_000, context=256, vocab_size=4096)
    chosen = plan(limits, with_sensitivity=False).chosen
    written = init_checkpoint(tmp_path / "model", chosen.config, "int4", seed=0)
    assert written.tensors().tensor_bytes == chosen.weight_bytes
    file_bytes = (tmp_path / "model" / "model.safetensors").stat().st_size
    header = len(encode_header(file_layout(chosen.config, "int4")))
    assert file_bytes == chosen.weight_bytes + header


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from([512, 4096, 128_256]),
    st.sampled_from(get_args(KvFormat)),
)
def test_counting_by_layers_is_counting_by_tensors(index: int, vocab: int, kv: KvFormat) -> None:
    shapes, _ = sound_shapes(GRANULARITIES, FORMS)
    shape = shapes[index % len(shapes)]
    assert counted((shape,), vocab, kv) == ((shape, count(shape, vocab, kv)),)


def test_every_sound_shape_is_a_model() -> None:
    """The rules leave only what the kernels and the expert-parallel group take."""
    shapes, funnel = sound_shapes(GRANULARITIES, FORMS)
    assert [step.left for step in funnel] == sorted((s.left for s in funnel), reverse=True)
    assert funnel[-1].left == len(shapes)
    for shape in shapes[:: len(shapes) // 60]:
        config = shape.config(4096, 64)
        assert config.num_attention_heads * config.head_dim == config.hidden_size
        assert config.num_local_experts % 4 == 0
        per_token = config.intermediate_size_mlp
        per_token += config.num_experts_per_tok * config.intermediate_size
        assert per_token == 4 * config.hidden_size
        assert 30 < config.hidden_size / config.num_hidden_layers < 46


def test_only_granularities_that_four_devices_can_share_are_left() -> None:
    shapes, _ = sound_shapes((1, 2, 4, 8, 16), FORMS)
    forms = {(s.granularity, s.shared_expert) for s in shapes if s.expert_equivalents == 8}
    assert (8, True) in forms
    assert (16, True) in forms
    assert (2, True) not in forms  # 15 routed experts
    assert (1, True) not in forms  # nothing to share
    assert (1, False) in forms
