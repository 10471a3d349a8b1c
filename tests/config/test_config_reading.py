"""config.json in and out: round trips, and one refusal per kind of bad input."""

from __future__ import annotations

import json
from dataclasses import replace
from math import inf, nan
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilemoe import MobileMoEError, ModelConfig
from mobilemoe.presets import PRESETS

NANO = ModelConfig.preset("nano")
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 16,
    "original_max_position_embeddings": 8192,
    "low_freq_factor": 1.0,
    "high_freq_factor": 1.0,
}


@pytest.mark.parametrize("name", PRESETS)
def test_presets_round_trip_through_json(name: str) -> None:
    config = ModelConfig.preset(name)
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@st.composite
def configs(draw: st.DrawFn) -> ModelConfig:
    """Draw valid mixtures and dense models of any shape."""
    experts = draw(st.integers(0, 300))
    dense = experts == 0
    groups = draw(st.integers(1, 8))
    step = 1 if dense else draw(st.integers(1, 4))
    shared = draw(st.integers(1 if dense or step > 1 else 0, 64))
    vocab = draw(st.integers(1, 2**31 - 1))
    token = st.integers(0, vocab - 1)
    scaled = draw(st.booleans())
    positive = st.floats(1e-6, 1e6)
    return ModelConfig(
        vocab_size=vocab,
        hidden_size=32 * draw(st.integers(1, 128)),
        intermediate_size=0 if dense else 32 * draw(st.integers(1, 64)),
        intermediate_size_mlp=32 * shared,
        num_hidden_layers=draw(st.integers(step, 64)),
        num_attention_heads=groups * draw(st.integers(1, 8)),
        num_key_value_heads=groups,
        head_dim=32 * draw(st.integers(1, 8)),
        num_local_experts=experts,
        num_experts_per_tok=0 if dense else draw(st.integers(1, experts)),
        interleave_moe_layer_step=step,
        max_position_embeddings=draw(st.integers(1, 2**20)),
        rms_norm_eps=draw(positive),
        rope_theta=draw(positive),
        rope_scaling_factor=draw(st.floats(1.5, 64)) if scaled else 1.0,
        rope_original_max_position_embeddings=draw(st.integers(1, 2**20)) if scaled else 8192,
        routed_scaling_factor=draw(positive),
        tie_word_embeddings=draw(st.booleans()),
        bos_token_id=draw(token),
        eos_token_id=tuple(draw(st.lists(token, min_size=1, max_size=4))),
    )


@settings(max_examples=60, deadline=None)
@given(configs())
def test_any_config_round_trips_through_json(config: ModelConfig) -> None:
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_the_released_config_is_read() -> None:
    values = ModelConfig.preset("S").to_dict()
    values |= {"rope_scaling": LLAMA3, "attention_dropout": 0.0, "transformers_version": "4.57"}
    assert ModelConfig.from_dict(values) == ModelConfig.preset("S")


def test_one_end_token_may_stand_without_a_list() -> None:
    assert ModelConfig.from_dict(NANO.to_dict() | {"eos_token_id": 3}).eos_token_id == (3,)


def test_no_rope_scaling_means_factor_one() -> None:
    values = ModelConfig.preset("S").to_dict() | {"rope_scaling": None}
    assert ModelConfig.from_dict(values).rope_scaling_factor == 1.0


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"sliding_window": 4096}, "sliding_window"),
        ({"model_type": "llama"}, "model_type"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"use_qk_norm": False}, "use_qk_norm"),
        ({"attn_temperature_tuning": True}, "attn_temperature_tuning"),
        ({"attention_bias": True}, "attention_bias"),
        ({"norm_topk_prob": False}, "norm_topk_prob"),
        ({"no_rope_layers": [1, 1, 1, 0]}, "no_rope_layers"),
        ({"no_rope_layers": [1]}, "no_rope_layers"),
        ({"layer_types": ["sliding_attention"] * 4}, "layer_types"),
        ({"hidden_size": "128"}, "hidden_size"),
        ({"hidden_size": 128.0}, "hidden_size"),
        ({"num_hidden_layers": True}, "num_hidden_layers"),
        ({"vocab_size": None}, "vocab_size"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings"),
        ({"rope_theta": "10000"}, "rope_theta"),
        ({"eos_token_id": []}, "eos_token_id"),
        ({"eos_token_id": None}, "eos_token_id"),
        ({"eos_token_id": ["</s>"]}, "eos_token_id"),
        ({"eos_token_id": [1, 4096]}, "eos_token_id"),
        ({"bos_token_id": -1}, "bos_token_id"),
        ({"bos_token_id": 4096}, "bos_token_id"),
        ({"rope_scaling": "llama3"}, "rope_scaling"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 16}}, "rope_scaling"),
        ({"rope_scaling": LLAMA3 | {"mscale": 1.0}}, "rope_scaling"),
        ({"rope_scaling": LLAMA3 | {"rope_type": "yarn"}}, "rope_type"),
        ({"rope_scaling": LLAMA3 | {"low_freq_factor": 4.0}}, "low_freq_factor"),
        ({"rope_scaling": LLAMA3 | {"high_freq_factor": 4.0}}, "high_freq_factor"),
        ({"rope_scaling": LLAMA3 | {"factor": 0}}, "rope_scaling_factor"),
        ({"rope_scaling": LLAMA3 | {"factor": "16"}}, "rope_scaling_factor"),
    ],
)
def test_rejects_a_bad_config_file(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(MobileMoEError, match=named) as caught:
        ModelConfig.from_dict(NANO.to_dict() | changes)
    assert caught.value.hint


@pytest.mark.parametrize("key", ["model_type", "hidden_size", "num_local_experts", "vocab_size"])
def test_rejects_a_missing_key(key: str) -> None:
    values = NANO.to_dict()
    del values[key]
    with pytest.raises(MobileMoEError, match=key):
        ModelConfig.from_dict(values)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"num_attention_heads": 3, "num_key_value_heads": 2}, "num_attention_heads is 3"),
        ({"head_dim": 63}, "head_dim is 63"),
        ({"hidden_size": 100}, "hidden_size is 100"),
        ({"intermediate_size": 48}, "intermediate_size is 48"),
        ({"intermediate_size_mlp": 250}, "intermediate_size_mlp is 250"),
        ({"hidden_size": 0}, "hidden_size is 0"),
        ({"hidden_size": -128}, "hidden_size is -128"),
        ({"interleave_moe_layer_step": 5}, "interleave_moe_layer_step is 5"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ({"vocab_size": 2**31}, "vocab_size is 2147483648"),
        ({"max_position_embeddings": 0}, "max_position_embeddings is 0"),
        ({"interleave_moe_layer_step": 0}, "interleave_moe_layer_step is 0"),
        ({"num_experts_per_tok": 0}, "num_experts_per_tok is 0"),
        ({"num_experts_per_tok": 61}, "num_experts_per_tok is 61"),
        ({"num_local_experts": 0}, "num_experts_per_tok is 4"),
        ({"num_local_experts": 0, "num_experts_per_tok": 0}, "intermediate_size is 64"),
        ({"intermediate_size": 0}, "intermediate_size is 0"),
        (
            {"intermediate_size_mlp": 0, "interleave_moe_layer_step": 2},
            "intermediate_size_mlp is 0",
        ),
        ({"rms_norm_eps": nan}, "rms_norm_eps is nan"),
        ({"rms_norm_eps": 0.0}, r"rms_norm_eps is 0\.0"),
        ({"rope_theta": inf}, "rope_theta is inf"),
        ({"rope_theta": -1.0}, r"rope_theta is -1\.0"),
        ({"rope_scaling_factor": nan}, "rope_scaling_factor is nan"),
        ({"routed_scaling_factor": True}, "routed_scaling_factor is True"),
        ({"eos_token_id": [1]}, r"eos_token_id is \[1\]"),
        ({"eos_token_id": (-1,)}, "eos_token_id is -1"),
    ],
)
def test_rejects_a_bad_shape(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(MobileMoEError, match=f"config: .*{named}; allowed: "):
        replace(NANO, **changes)


def test_a_mixture_without_a_shared_expert_is_a_model() -> None:
    config = replace(NANO, intermediate_size_mlp=0)
    assert not any("shared_expert" in weight.name for weight in config.weights())


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("head_dim", {"head_dim": 8, "num_attention_heads": 1, "num_key_value_heads": 1}),
        ("num_hidden_layers", {"num_hidden_layers": 2**31 - 1}),
    ],
)
def test_shapes_that_no_file_can_hold_are_refused(field: str, values: dict[str, int]) -> None:
    released = ModelConfig.preset("S").to_dict()
    with pytest.raises(MobileMoEError, match=field):
        ModelConfig.from_dict(released | values)


def test_missing_end_tokens_are_refused_and_never_guessed() -> None:
    values = NANO.to_dict()
    del values["eos_token_id"]
    with pytest.raises(MobileMoEError, match="missing key 'eos_token_id'") as caught:
        ModelConfig.from_dict(values)
    assert "generation_config.json" in caught.value.hint


def test_a_missing_bos_is_that_of_the_released_tokenizer() -> None:
    for config, expected in ((ModelConfig.preset("S"), 128_000), (NANO, 0)):
        values = config.to_dict()
        del values["bos_token_id"]
        assert ModelConfig.from_dict(values).bos_token_id == expected
