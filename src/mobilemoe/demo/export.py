"""The checkpoints of a run: the result, and the forms it is compared with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mobilemoe.checkpoint import Checkpoint, init_checkpoint, write_checkpoint
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
    init_checkpoint(folder / TWIN, twin, "int4", seed, tokenizer_json=tokenizer_json)
    files = {"bf16": file_bytes(written["sft-bf16"]), "int4": file_bytes(written["model"])}
    size = files["int4"]["file_bytes"] / 1e6
    return {"files": files, "summary": f"INT4 file of {size:.2f} MB"}


def reader(model: MobileMoE) -> Callable[[str], Float32]:
    """Return the function that `write_checkpoint` reads float weights with."""
    floats = float_weights(model, model.config.weights())
    return lambda name: floats[name].detach().numpy()


def file_bytes(checkpoint: Checkpoint) -> dict[str, int]:
    """Return what the config predicts and what the disk holds, in bytes."""
    tensors = checkpoint.tensors()
    return {
        "planned_tensor_bytes": checkpoint.config.weight_bytes(checkpoint.weight_format),
        "tensor_bytes": tensors.tensor_bytes,
        "header_bytes": tensors.header_bytes,
        "file_bytes": tensors.file_bytes,
    }
