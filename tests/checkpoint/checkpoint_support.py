"""The smallest checkpoints that hold every kind of tensor, and files made of raw headers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mobilemoe.checkpoint import Checkpoint, write_checkpoint
from mobilemoe.config import ModelConfig

DATA = Path(__file__).parents[1] / "data"

SMALLEST = ModelConfig(
    vocab_size=8,
    hidden_size=32,
    intermediate_size=32,
    intermediate_size_mlp=32,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=16,
    num_local_experts=3,
    num_experts_per_tok=2,
    max_position_embeddings=64,
)
CONFIGS = {
    "moe": SMALLEST,
    "interleaved": replace(SMALLEST, num_hidden_layers=3, interleave_moe_layer_step=2),
    "untied": replace(SMALLEST, tie_word_embeddings=False),
    "no-shared-expert": replace(SMALLEST, intermediate_size_mlp=0),
    "dense": replace(SMALLEST, num_local_experts=0, num_experts_per_tok=0, intermediate_size=0),
}


def random_weights(config: ModelConfig, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {w.name: rng.standard_normal(w.shape).astype(np.float32) for w in config.weights()}


def write_random(
    folder: Path, config: ModelConfig = SMALLEST, weight_format="int4", seed: int = 0, **options
) -> Checkpoint:
    read = random_weights(config, seed).__getitem__
    return write_checkpoint(folder, config, weight_format, read, **options)


def weights_file(checkpoint: Checkpoint) -> Path:
    """The one safetensors file of a checkpoint that is not sharded."""
    return checkpoint.folder / "model.safetensors"


def split(raw: bytes) -> tuple[dict[str, Any], bytes]:
    """Return header and tensor bytes of a safetensors file."""
    length = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def join(header: object, data: bytes) -> bytes:
    """Return a safetensors file; a header given as bytes is taken as it is."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def folder_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
