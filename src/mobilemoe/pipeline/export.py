"""The checkpoints of a run, as the release names them: base, SFT and INT4."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from mobilemoe.checkpoint import Checkpoint, open_checkpoint, write_checkpoint
from mobilemoe.model import MobileMoE
from mobilemoe.pipeline.folder import RunFolder
from mobilemoe.quant.fake import float_weights
from mobilemoe.recipe import Recipe, Stage
from mobilemoe.train import load_weights
from mobilemoe.weights import WeightFormat

Float32 = npt.NDArray[np.float32]

# stage -> (folder, format, whether it can talk)
FORMS: dict[str, tuple[str, WeightFormat, bool]] = {
    "midtrain": ("base", "bf16", False),
    "sft": ("sft", "bf16", True),
    "qat": ("model", "int4", True),
}


def export_stage(
    recipe: Recipe, folder: RunFolder, stage: Stage, tokenizer_json: str
) -> Checkpoint | None:
    """Write the checkpoint that `stage` ends with, once; None if it ends with none."""
    if stage.name not in FORMS:
        return None
    name, weight_format, chat = FORMS[stage.name]
    if (folder.path / name).exists():
        return open_checkpoint(folder.path / name)
    model = load_weights(MobileMoE(recipe.model), folder.stage(stage.name))
    read = float_reader(model)
    return write_checkpoint(
        folder.path / name, recipe.model, weight_format, read, tokenizer_json, chat=chat
    )


def float_reader(model: MobileMoE) -> Callable[[str], Float32]:
    """Return the function that `write_checkpoint` reads the float weights of `model` with."""
    floats = float_weights(model, model.config.weights())
    return lambda name: floats[name].detach().numpy()
