"""Checkpoints of random weights in the exact layout: for benchmarks and tests, not for text.

The statistics are those of fresh training: normal weights, what writes to the residual stream
smaller by 1/sqrt(2 layers), router logits of unit size. Two deviations make the work of such a
model like that of a trained one: attention writes a quarter of that, for else the mean over all
positions takes the stream over and deep layers send every token to the same few experts; and
the final norm has random signs, for else the tied head answers every token with itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import sqrt
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mobilemoe.checkpoint.folder import Checkpoint, row_blocks
from mobilemoe.checkpoint.tensor_writer import Progress, no_progress
from mobilemoe.checkpoint.write import (
    Piece,
    config_values,
    encode_weight,
    tokenizer_texts,
    write_pieces,
)
from mobilemoe.config import ModelConfig
from mobilemoe.weights import Weight, WeightFormat

Float32 = npt.NDArray[np.float32]

INIT_SCALE = 0.5  # standard deviation of a weight times sqrt(D), as in training
ATTENTION_SCALE = 0.25  # of o_proj
NORM_SPREAD = 0.1  # around 1
FINAL_NORM = "model.norm.weight"
BIAS_SPREAD = 0.02  # of expert_bias; larger ones would make some experts the choice of all


def init_checkpoint(
    folder: Path,
    config: ModelConfig,
    weight_format: WeightFormat,
    seed: int,
    *,
    tokenizer_json: str | None = None,
    chat: bool = False,
    shard_bytes: int | None = None,
    progress: Progress = no_progress,
) -> Checkpoint:
    """Write random weights of `config` to `folder`, block by block.

    The same seed gives the same bytes; both formats hold the same weights, rounded each in its
    own way. Memory stays near one block (4 MB) whatever the model.

    Raises:
        MobileMoEError: if the disk refuses or is too small, or `folder` holds something else.
    """
    indices = {weight.name: index for index, weight in enumerate(config.weights())}

    def pieces(weight: Weight) -> Iterator[Piece]:
        for rows in random_blocks(config, weight, [seed, indices[weight.name]]):
            yield encode_weight(weight, rows, weight_format)

    values = config_values(config.to_dict(), weight_format)
    texts = tokenizer_texts(tokenizer_json, chat)
    return write_pieces(folder, config, weight_format, pieces, values, texts, shard_bytes, progress)


def random_blocks(config: ModelConfig, weight: Weight, seed: list[int]) -> Iterator[Float32]:
    """Yield the rows [n, last axis] of one random weight in blocks."""
    generator = np.random.Generator(np.random.SFC64(seed))
    mean, std = (1.0, NORM_SPREAD) if weight.kind == "norm" else (0.0, _std(config, weight))
    for start, stop in row_blocks(weight):
        rows = generator.standard_normal((stop - start, weight.shape[-1]), np.float32)
        rows *= np.float32(std)
        rows += np.float32(mean)
        if weight.name == FINAL_NORM:
            rows *= generator.choice(np.array([-1, 1], np.float32), rows.shape)
        yield rows


def _std(config: ModelConfig, weight: Weight) -> float:
    if weight.kind == "expert_bias":
        return BIAS_SPREAD
    base = 1 / sqrt(config.hidden_size)
    if weight.kind == "router":
        return base  # times a normalised input: logits of unit size
    residual = INIT_SCALE * base / sqrt(2 * config.num_hidden_layers)
    if "o_proj" in weight.name:
        return ATTENTION_SCALE * residual
    return residual if "down_proj" in weight.name else INIT_SCALE * base
