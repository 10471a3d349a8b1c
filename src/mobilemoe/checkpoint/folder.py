"""A checkpoint folder: config.json, model.safetensors, tokenizer.json, tokenizer_config.json."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mobilemoe.atomic import atomic_folder, atomic_write
from mobilemoe.checkpoint.chat import CHAT_TEMPLATE
from mobilemoe.checkpoint.layout import QUANTIZATION_BLOCK, file_layout, stored_tensors
from mobilemoe.checkpoint.tensor_file import TensorFile, write_tensor_file
from mobilemoe.config import ModelConfig
from mobilemoe.errors import CheckpointError, MobileMoEError
from mobilemoe.quant.int4 import dequantize, pack, quantize, round_bf16, unpack
from mobilemoe.weights import QUANTIZED_KINDS, Weight, WeightFormat

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Checkpoint:
    """A folder whose config.json is understood; `open_checkpoint` makes it."""

    folder: Path
    config: ModelConfig
    weight_format: WeightFormat

    @property
    def weights_path(self) -> Path:
        """The one safetensors file."""
        return self.folder / "model.safetensors"

    def tensor_file(self) -> TensorFile:
        """Map the weights after comparing every tensor with the config.

        Raises:
            CheckpointError: if the file is missing, damaged or belongs to another config.
        """
        file = TensorFile.open(self.weights_path)
        file.check_layout(file_layout(self.config, self.weight_format))
        return file

    def read_weights(self) -> Iterator[tuple[Weight, Float32]]:
        """Yield every logical weight as float32, dequantised if the file is INT4."""
        file = self.tensor_file()
        for weight in self.config.weights():
            yield weight, _read_weight(file, weight, self.weight_format)


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Read and check the config.json of folder `path`; weights are checked when opened.

    Raises:
        CheckpointError: if the folder or its config.json is missing or not of this family.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise CheckpointError(
            f"no checkpoint folder at {folder}",
            hint="give a folder with config.json and model.safetensors; `make demo` makes one",
        )
    values = _read_json(folder / "config.json")
    try:
        config = ModelConfig.from_dict(values)
    except MobileMoEError as error:
        raise CheckpointError(f"{folder}: {error.message}", hint=error.hint) from error
    return Checkpoint(folder, config, _weight_format(folder, values))


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
    values = config.to_dict()
    if weight_format == "int4":
        values["quantization"] = QUANTIZATION_BLOCK
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "config.json").exists():
        raise CheckpointError(
            f"{folder} holds files and is no checkpoint; it would be replaced as a whole",
            hint="give a new folder, or one that holds a checkpoint",
        )
    with atomic_folder(folder) as temporary:
        layout = file_layout(config, weight_format)
        tensors = _encode_all(config, weight_format, read)
        write_tensor_file(temporary / "model.safetensors", layout, tensors)
        atomic_write(temporary / "config.json", json.dumps(values, indent=1) + "\n")
        if tokenizer_json is not None:
            atomic_write(temporary / "tokenizer.json", tokenizer_json)
            settings = json.dumps(_tokenizer_config(chat), indent=1) + "\n"
            atomic_write(temporary / "tokenizer_config.json", settings)
    return Checkpoint(folder, config, weight_format)


def _tokenizer_config(chat: bool) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "bos_token": "<|begin_of_text|>",
        "eos_token": "<|eot|>" if chat else "<|end_of_text|>",
        "clean_up_tokenization_spaces": False,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    if chat:
        settings["chat_template"] = CHAT_TEMPLATE
    return settings


def _encode_all(
    config: ModelConfig, weight_format: WeightFormat, read: Callable[[str], Float32]
) -> Iterator[npt.NDArray[Any]]:
    for weight in config.weights():
        values = read(weight.name)
        if not np.isfinite(values).all():
            raise MobileMoEError(
                f"cannot write {weight.name}: it holds NaN or infinite values",
                hint="the model has diverged; go back to an earlier checkpoint",
            )
        yield from encode_weight(weight, values, weight_format)


def encode_weight(
    weight: Weight, values: Float32, weight_format: WeightFormat
) -> Iterator[npt.NDArray[Any]]:
    """Yield the stored tensors of one float32 weight, in the order of `stored_tensors`."""
    if weight_format == "int4" and weight.kind in QUANTIZED_KINDS:
        integers, scales = quantize(values)
        yield pack(integers)
        yield scales
    elif weight_format == "int4" and weight.kind == "router":
        yield values.astype(np.float32)
    else:
        yield round_bf16(values)


def _read_weight(file: TensorFile, weight: Weight, weight_format: WeightFormat) -> Float32:
    names = [tensor.name for tensor in stored_tensors(weight, weight_format)]
    if len(names) == 2:
        return dequantize(unpack(file.read(names[0])), file.read(names[1]))
    return file.read_float32(names[0])


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path.parent} has no {path.name}", hint="is this a MobileMoE checkpoint folder?"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: is not a JSON object")
    return values


def _weight_format(folder: Path, values: dict[str, Any]) -> WeightFormat:
    block = values.get("quantization")
    if block is None:
        return "bf16"
    if block != QUANTIZATION_BLOCK:
        raise CheckpointError(
            f"{folder}: quantization is {block!r}; allowed: {QUANTIZATION_BLOCK!r}",
            hint="this build reads BF16 and the released INT4 format only",
        )
    return "int4"
