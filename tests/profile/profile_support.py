"""Small checkpoints that a benchmark gets through in milliseconds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mobilemoe.checkpoint import Checkpoint, init_checkpoint
from mobilemoe.config import ModelConfig

CONFIG = ModelConfig(
    vocab_size=320,
    hidden_size=64,
    intermediate_size=32,
    intermediate_size_mlp=64,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=32,
    num_local_experts=6,
    num_experts_per_tok=2,
    max_position_embeddings=128,
)
DENSE = replace(CONFIG, num_local_experts=0, num_experts_per_tok=0, intermediate_size=0)


def write(folder: Path, config: ModelConfig = CONFIG, seed: int = 0) -> Checkpoint:
    """Write random INT4 weights without a tokenizer."""
    return init_checkpoint(folder, config, "int4", seed)
