"""Writing a checkpoint folder, whole or not at all, from whole weights or streamed pieces."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mobilemoe.atomic import atomic_folder, atomic_write
from mobilemoe.checkpoint.chat import CHAT_TEMPLATE
from mobilemoe.checkpoint.companions import check_replaceable
from mobilemoe.checkpoint.config_file import CONFIG_FILE
from mobilemoe.checkpoint.folder import Checkpoint, row_blocks
from mobilemoe.checkpoint.layout import (
    QUANTIZATION_BLOCK,
    StoredTensor,
    file_layout,
    stored_tensors,
)
from mobilemoe.checkpoint.tensor_writer import Progress, TensorWriter, no_progress
from mobilemoe.config import ModelConfig
from mobilemoe.errors import MobileMoEError
from mobilemoe.quant.int4 import pack, quantize, round_bf16
from mobilemoe.weights import QUANTIZED_KINDS, Weight, WeightFormat

Float32 = npt.NDArray[np.float32]
Piece = tuple[npt.NDArray[Any], ...]  # rows of each stored tensor of one weight


def write_checkpoint(
    folder: Path,
    config: ModelConfig,
    weight_format: WeightFormat,
    read: Callable[[str], Float32],
    tokenizer_json: str | None = None,
    chat: bool = False,
) -> Checkpoint:
    """Write a folder in the released layout, whole or not at all.

    `read(name)` returns the float32 weight of that (BF16) name. `chat` adds the chat template,
    which Base models do not have.

    Raises:
        MobileMoEError: if a weight cannot be quantised or the disk refuses.
    """

    def pieces(weight: Weight) -> Iterator[Piece]:
        values = read(weight.name)
        rows = values.reshape(-1, values.shape[-1])
        for start, stop in row_blocks(weight):
            yield encode_weight(weight, rows[start:stop], weight_format)

    values = config_values(config.to_dict(), weight_format)
    texts = tokenizer_texts(tokenizer_json, chat)
    return write_pieces(folder, config, weight_format, pieces, values, texts)


def write_pieces(
    folder: Path,
    config: ModelConfig,
    weight_format: WeightFormat,
    pieces: Callable[[Weight], Iterable[Piece]],
    values: Mapping[str, Any],
    texts: Mapping[str, bytes],
    shard_bytes: int | None = None,
    progress: Progress = no_progress,
    layout: Sequence[StoredTensor] = (),
) -> Checkpoint:
    """Write a folder from pieces, so that no weight is ever whole in memory.

    `pieces(weight)` yields the rows of the weight's stored tensors (`encode_weight` makes
    them); `values` is config.json; `texts` are further files by name. Weights are split into
    files of at most `shard_bytes`. `layout` is that of the format unless it says otherwise.

    Raises:
        MobileMoEError: if the disk refuses or is too small, or `folder` holds something else.
    """
    check_replaceable(folder)
    with atomic_folder(folder, last=CONFIG_FILE) as temporary:
        layout = layout or file_layout(config, weight_format)
        with TensorWriter(temporary, layout, shard_bytes, progress) as writer:
            for weight in config.weights():
                names = [tensor.name for tensor in stored_tensors(weight, weight_format)]
                for piece in pieces(weight):
                    for name, stored in zip(names, piece, strict=True):
                        writer.append(name, stored)
        atomic_write(temporary / CONFIG_FILE, json.dumps(values, indent=1) + "\n")
        for name, text in texts.items():
            atomic_write(temporary / name, text)
    return Checkpoint(folder, config, weight_format)


def encode_weight(weight: Weight, rows: Float32, weight_format: WeightFormat) -> Piece:
    """Return rows [n, last axis] of a float32 weight as the file stores them.

    Raises:
        MobileMoEError: naming the weight, if a value is not finite or too large.
    """
    if not np.isfinite(rows).all():
        raise MobileMoEError(
            f"cannot write {weight.name}: it holds NaN or infinite values",
            hint="the model has diverged; go back to an earlier checkpoint",
        )
    if weight_format == "int4" and weight.kind in QUANTIZED_KINDS:
        integers, scales = quantize(rows)
        return pack(integers), scales
    if weight_format == "int4" and weight.kind == "router":
        return (rows.astype(np.float32),)
    return (round_bf16(rows),)


def config_values(values: Mapping[str, Any], weight_format: WeightFormat) -> dict[str, Any]:
    """Return the content of config.json for weights stored as `weight_format`."""
    kept = {key: value for key, value in values.items() if key != "quantization"}
    return kept | ({"quantization": QUANTIZATION_BLOCK} if weight_format == "int4" else {})


def tokenizer_texts(tokenizer_json: str | None, chat: bool) -> dict[str, bytes]:
    """Return the tokenizer's files by name; none if there is no tokenizer."""
    if tokenizer_json is None:
        return {}
    settings: dict[str, Any] = {
        "bos_token": "<|begin_of_text|>",
        "eos_token": "<|eot|>" if chat else "<|end_of_text|>",
        "clean_up_tokenization_spaces": False,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    if chat:
        settings["chat_template"] = CHAT_TEMPLATE
    return {
        "tokenizer.json": tokenizer_json.encode(),
        "tokenizer_config.json": (json.dumps(settings, indent=1) + "\n").encode(),
    }
