"""Small checkpoints with their float sources, and copies with one thing wrong."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mobilemoe.checkpoint import open_checkpoint, write_checkpoint
from mobilemoe.checkpoint.header import NUMPY_DTYPES
from mobilemoe.config import ModelConfig
from mobilemoe.verify import Check, Pair, Receipt
from mobilemoe.verify.files import Weights

DATA = Path(__file__).parents[1] / "data"

# Square experts: a transposed one keeps its shape.
SQUARE = ModelConfig(
    vocab_size=96,
    hidden_size=64,
    intermediate_size=64,
    intermediate_size_mlp=96,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    num_local_experts=6,
    num_experts_per_tok=2,
    max_position_embeddings=64,
    rope_theta=10_000.0,
    rope_scaling_factor=4.0,
    rope_original_max_position_embeddings=64,
)
SHAPES = {
    "moe": SQUARE,
    "dense": replace(SQUARE, num_local_experts=0, num_experts_per_tok=0, intermediate_size=0),
    "interleaved": replace(SQUARE, interleave_moe_layer_step=2),
    "untied": replace(SQUARE, tie_word_embeddings=False),
    "no-shared-expert": replace(SQUARE, intermediate_size_mlp=0, head_dim=32),
    "fp16-cache": replace(SQUARE, head_dim=24, num_key_value_heads=4),  # int8 takes no such head
    "every-expert": replace(SQUARE, num_experts_per_tok=6, num_key_value_heads=4),
}


def write_random(folder: Path, config: ModelConfig, seed: int = 0) -> Path:
    """Write BF16 weights that make every part matter."""
    weights = {weight.name: weight for weight in config.weights()}
    rng = np.random.default_rng(seed)

    def read(name: str) -> Any:
        weight = weights[name]
        noise = rng.standard_normal(weight.shape).astype(np.float32)
        if weight.kind == "norm":
            return 1 + 0.1 * noise
        if weight.kind == "expert_bias":
            return 0.1 * noise
        return noise / np.float32(np.sqrt(weight.shape[1]))

    write_checkpoint(folder, config, "bf16", read)
    return folder


def write_pair(folder: Path, config: ModelConfig, seed: int = 0) -> tuple[Path, Path]:
    """Write an INT4 checkpoint and the BF16 one it is rounded from; return both folders."""
    source = write_random(folder / "bf16", config, seed)
    weights = Weights(open_checkpoint(source))

    def read(name: str) -> Any:
        return weights.array(name).astype(np.float32)

    write_checkpoint(folder / "int4", config, "int4", read)
    return folder / "int4", source


def copy_of(folder: Path, target: Path) -> Path:
    shutil.copytree(folder, target)
    return target


@contextmanager
def stored_tensor(folder: Path, name: str) -> Iterator[np.ndarray]:
    """Yield a stored tensor of `folder` to be changed in place."""
    file = open_checkpoint(folder).tensors().homes[name]
    entry, data = file.entries[name], np.memmap(file.path, np.uint8, "r+")
    yield data[entry.start : entry.stop].view(NUMPY_DTYPES[entry.dtype]).reshape(entry.shape)
    data.flush()


def check(receipt: Receipt, section: str, name: str) -> Check:
    """Return one check of a receipt."""
    found = [
        each
        for part in receipt.sections
        if part.name == section
        for each in part.checks
        if each.name == name
    ]
    assert len(found) == 1, f"{section}: {name} stands {len(found)} times"
    return found[0]


def pair(receipt: Receipt, name: str) -> Pair:
    assert receipt.parity is not None
    return next(each for each in receipt.parity.pairs if each.name == name)
