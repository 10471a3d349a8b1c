"""config.json of a checkpoint: what the model is, and how its weights are stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mobilemoe.checkpoint.layout import QUANTIZATION_BLOCK
from mobilemoe.checkpoint.text_files import read_json_object
from mobilemoe.config import ModelConfig
from mobilemoe.errors import CheckpointError, MobileMoEError
from mobilemoe.weights import WeightFormat

CONFIG_FILE = "config.json"


def read_config(path: Path) -> tuple[ModelConfig, WeightFormat]:
    """Return what the config.json at `path` describes.

    Raises:
        CheckpointError: if it is missing, damaged, or describes what this build does not run.
    """
    values = read_json_object(path)
    try:
        return ModelConfig.from_dict(values), _weight_format(path.parent, values)
    except CheckpointError:
        raise
    except MobileMoEError as error:
        raise CheckpointError(f"{path.parent}: {error.message}", hint=error.hint) from error


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
