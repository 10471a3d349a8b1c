"""The whole training state in one safetensors file: nothing is pickled.

Batches are pure functions of (seed, step) and the loop draws no random numbers, so weights,
optimiser moments, expert biases and the step number are all there is to resume exactly.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mobilemoe.atomic import atomic_write
from mobilemoe.errors import CheckpointError

STATE_FILE = "state.safetensors"


def save_state(folder: Path, tensors: dict[str, Tensor], progress: dict[str, int | str]) -> None:
    """Write `tensors` and `progress` atomically to `folder`.

    Raises:
        MobileMoEError: if the disk refuses; the previous state stays.
    """
    plain = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    atomic_write(folder / STATE_FILE, save(plain, {"progress": json.dumps(progress)}))


def load_state(folder: Path) -> tuple[dict[str, Tensor], dict[str, int | str]] | None:
    """Return what `save_state` wrote, or None if nothing was saved yet.

    Raises:
        CheckpointError: if the file is damaged.
    """
    path = folder / STATE_FILE
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            progress = json.loads(file.metadata()["progress"])
            return {name: file.get_tensor(name) for name in file.keys()}, progress  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"cannot read the training state {path}: {error}",
            hint="delete it to train this stage from its start",
        ) from error


def take(tensors: dict[str, Tensor], prefix: str, like: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors called `prefix` + name for every name of `like`, shapes checked.

    Raises:
        CheckpointError: if one is missing or has another shape: the state is of another model.
    """
    found = {}
    for name, target in like.items():
        tensor = tensors.get(prefix + name, torch.empty(0))
        if tensor.shape != target.shape:
            raise CheckpointError(
                f"training state: {prefix}{name} is {list(tensor.shape)}, "
                f"the model needs {list(target.shape)}",
                hint="the run folder belongs to another model; choose another folder",
            )
        found[name] = tensor
    return found
