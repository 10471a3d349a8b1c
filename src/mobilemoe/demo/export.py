"""The checkpoints of a run: the result, and the forms it is compared with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mobilemoe.checkpoint import Checkpoint, write_checkpoint
from mobilemoe.config import ModelConfig
from mobilemoe.model import MobileMoE
from mobilemoe.quant.fake import float_weights
from mobilemoe.train import load_weights
from mobilemoe.weights import WeightFormat

Float32 = npt.NDArray[np.float32]

# folder -> (stage whose weights it holds, format)
FORMS: dict[str, tuple[str, WeightFormat]] = {
    "sft-bf16": ("sft", "bf16"),
    "sft-int4": ("sft", "int4"),
    "control-bf16": ("control", "bf16"),
    "control-int4": ("control", "int4"),
    "model": ("qat", "int4"),
}
TWIN = "twin-int4"


def export_forms(
    folder: Path, config: ModelConfig, tokenizer_json: str, seed: int
) -> dict[str, Any]:
    """Write every form and the dense twin; return planned and actual bytes of two of them."""
    written = {}
    for name, (stage, weight_format) in FORMS.items():
        model = load_weights(MobileMoE(config), folder / "stages" / stage)
        read = reader(model)
        written[name] = write_checkpoint(
            folder / name, config, weight_format, read, tokenizer_json, chat=True
        )
    twin = config.dense_twin()
    write_checkpoint(folder / TWIN, twin, "int4", random_weights(twin, seed), tokenizer_json)
    files = {"bf16": file_bytes(written["sft-bf16"]), "int4": file_bytes(written["model"])}
    size = files["int4"]["file_bytes"] / 1e6
    return {"files": files, "summary": f"INT4 file of {size:.2f} MB"}


def reader(model: MobileMoE) -> Callable[[str], Float32]:
    """Return the function that `write_checkpoint` reads float weights with."""
    floats = float_weights(model, model.config.weights())
    return lambda name: floats[name].detach().numpy()


def random_weights(config: ModelConfig, seed: int) -> Callable[[str], Float32]:
    """Return weights of realistic size for a model that is only timed, never trusted."""
    generator = np.random.default_rng(seed)
    shapes = {weight.name: weight.shape for weight in config.weights()}
    std = 0.5 / config.hidden_size**0.5

    def read(name: str) -> Float32:
        values = generator.standard_normal(shapes[name], np.float32)
        return np.ones(shapes[name], np.float32) if "norm" in name else np.float32(std) * values

    return read


def file_bytes(checkpoint: Checkpoint) -> dict[str, int]:
    """Return what the config predicts and what the disk holds, in bytes."""
    file = checkpoint.tensor_file()
    return {
        "planned_tensor_bytes": checkpoint.config.weight_bytes(checkpoint.weight_format),
        "tensor_bytes": file.tensor_bytes,
        "header_bytes": 8 + file.header_bytes,
        "file_bytes": checkpoint.weights_path.stat().st_size,
    }
