"""Small models with weights that make every part matter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from mobilemoe.config import ModelConfig
from mobilemoe.model import MobileMoE, MoE

DATA = Path(__file__).parents[1] / "data"
FOLDERS = [DATA / name for name in ("tiny-int4", "tiny-bf16", "tiny-int4-hd64")]

SMALL = ModelConfig(
    vocab_size=40,
    hidden_size=32,
    intermediate_size=32,
    intermediate_size_mlp=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    num_local_experts=6,
    num_experts_per_tok=3,
    max_position_embeddings=128,
)
CONFIGS = {
    "moe": SMALL,
    "interleaved": replace(SMALL, interleave_moe_layer_step=2),
    "untied": replace(SMALL, tie_word_embeddings=False),
    "no-shared-expert": replace(SMALL, intermediate_size_mlp=0),
    "dense": replace(SMALL, num_local_experts=0, num_experts_per_tok=0, intermediate_size=0),
}


def fresh_model(config: ModelConfig, seed: int = 0) -> MobileMoE:
    return MobileMoE(config).init_weights(torch.Generator().manual_seed(seed)).eval()


def fresh_moe(config: ModelConfig, seed: int = 0) -> MoE:
    """Return a layer with unit-variance products and a bias that changes some choices."""
    generator = torch.Generator().manual_seed(seed)
    layer = MoE(config)
    for parameter in layer.parameters():
        fan_in = parameter.shape[1]
        torch.nn.init.normal_(parameter, std=fan_in**-0.5, generator=generator)
    layer.expert_bias.normal_(std=0.2, generator=generator)
    return layer


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def token_ids(config: ModelConfig, *shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(config.vocab_size, shape, generator=generator)
