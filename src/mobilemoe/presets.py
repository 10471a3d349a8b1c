"""Named shapes, and the dense twin of equal INT4 memory.

S, M and L are the paper's (arXiv 2605.27358); `nano` is the one this project trains on a
laptop. `mobilellm-pro` and `olmoe-1b-7b` are comparison shapes: their parameters and bytes
are counted as if stored in this project's layout.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from mobilemoe.config import LLAMA3_BOS, LLAMA3_VOCAB_SIZE, ModelConfig
from mobilemoe.errors import MobileMoEError
from mobilemoe.weights import GROUP_SIZE

LLAMA3_EOS = (128001, 128008)


def _released(hidden: int, layers: int) -> ModelConfig:
    """One of the released family: everything follows from width and depth."""
    return ModelConfig(
        vocab_size=LLAMA3_VOCAB_SIZE,
        hidden_size=hidden,
        intermediate_size=hidden // 2,
        intermediate_size_mlp=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=4,
        head_dim=64,
        num_local_experts=60,
        num_experts_per_tok=4,
        bos_token_id=LLAMA3_BOS,
        eos_token_id=LLAMA3_EOS,
    )


PRESETS: Mapping[str, ModelConfig] = {
    "S": _released(768, 20),
    "M": _released(1024, 26),
    "L": _released(1280, 32),
    "nano": ModelConfig(
        vocab_size=4096,
        hidden_size=128,
        intermediate_size=64,
        intermediate_size_mlp=256,
        num_hidden_layers=4,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=64,
        num_local_experts=60,
        num_experts_per_tok=4,
        max_position_embeddings=1024,
        rope_theta=10_000.0,
        rope_scaling_factor=1.0,
        bos_token_id=0,
        eos_token_id=(1, 4),
    ),
    "mobilellm-pro": ModelConfig(
        vocab_size=202048,
        hidden_size=1280,
        intermediate_size=0,
        intermediate_size_mlp=6144,
        num_hidden_layers=30,
        num_attention_heads=20,
        num_key_value_heads=4,
        head_dim=64,
        num_local_experts=0,
        num_experts_per_tok=0,
        bos_token_id=200000,
        eos_token_id=(200001,),
    ),
    "olmoe-1b-7b": ModelConfig(
        vocab_size=50304,
        hidden_size=2048,
        intermediate_size=1024,
        intermediate_size_mlp=0,
        num_hidden_layers=16,
        num_attention_heads=16,
        num_key_value_heads=16,
        head_dim=128,
        num_local_experts=64,
        num_experts_per_tok=8,
        tie_word_embeddings=False,
        bos_token_id=50279,
        eos_token_id=(50279,),
    ),
}


def preset(name: str) -> ModelConfig:
    """Return the shape called `name`; case does not matter.

    Raises:
        MobileMoEError: if there is no such preset.
    """
    for key, config in PRESETS.items():
        if key.lower() == name.lower():
            return config
    raise MobileMoEError(f"no preset called {name!r}; allowed: {', '.join(PRESETS)}")


def dense_twin(config: ModelConfig, tolerance: float = 0.005) -> ModelConfig:
    """Return the dense model whose INT4 file is as large as that of `config`.

    Among widths D (multiples of 64 that the KV heads divide), depths near the parent's
    D / layers and FFN widths that land within `tolerance` of the parent's bytes, it takes
    the one whose FFN is nearest to 4 D, the paper's rule for dense models: a twin that one
    would really train, not the parent with one very wide layer. If none lands within the
    tolerance, the nearest in bytes is taken.
    """
    target = config.weight_bytes("int4")
    candidates = list(_dense_candidates(config, target))

    def cost(twin: ModelConfig) -> tuple[float, float]:
        off = abs(twin.weight_bytes("int4") / target - 1)
        shape = abs(twin.intermediate_size_mlp / twin.hidden_size - 4)
        return (max(off, tolerance), shape)

    return min(candidates, key=cost)


def _dense_candidates(config: ModelConfig, target: int) -> Iterator[ModelConfig]:
    aspect = config.hidden_size / config.num_hidden_layers
    unit = config.head_dim * config.num_key_value_heads
    for hidden in range(unit, 8 * config.hidden_size + 1, unit):
        if hidden % GROUP_SIZE:
            continue
        for slack in (0.8, 0.9, 1.0, 1.1, 1.25):
            layers = max(1, round(hidden / aspect * slack))
            twin = _fit_ffn(config, hidden, layers, target)
            if twin is not None:
                yield twin


def _fit_ffn(config: ModelConfig, hidden: int, layers: int, target: int) -> ModelConfig | None:
    """Return the dense model of this width and depth with the FFN that meets `target` bytes."""

    def build(ffn: int) -> ModelConfig:
        return replace(
            config,
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=hidden // config.head_dim,
            intermediate_size=0,
            intermediate_size_mlp=ffn,
            num_local_experts=0,
            num_experts_per_tok=0,
            interleave_moe_layer_step=1,
        )

    base = build(GROUP_SIZE).weight_bytes("int4")
    step = build(2 * GROUP_SIZE).weight_bytes("int4") - base
    ffn = GROUP_SIZE * (1 + round((target - base) / step))
    return build(ffn) if ffn >= GROUP_SIZE else None
