"""The whole training state in one safetensors file: nothing is pickled.

Batches are pure functions of (seed, step), so weights, optimiser moments, expert biases, what
the guard remembers, torch's random state and the step number are all there is to resume exactly.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mobilemoe.atomic import atomic_file
from mobilemoe.errors import CheckpointError

STATE_FILE = "state.safetensors"
RANDOM = "random."  # names of random states: those of the devices that the run had
Progress = dict[str, Any]

_DTYPES = {
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.uint8: "U8",
}


class Store(Protocol):
    """How a training state is kept in a folder: as one file, or spread over many processes."""

    def save(self, folder: Path, tensors: Mapping[str, Tensor], progress: Progress) -> None:
        """Write the state; whatever fails, the one that was there stays or the new one is whole."""
        ...

    def load(self, folder: Path, into: Mapping[str, Tensor]) -> Progress | None:
        """Overwrite the values of `into`; return the progress, None if nothing was saved yet."""
        ...

    def finish(self, folder: Path, tensors: Mapping[str, Tensor], progress: Progress) -> None:
        """Leave the finished state, which has been saved, as one file."""
        ...


class OneFile:
    """The `Store` of a single process."""

    def save(self, folder: Path, tensors: Mapping[str, Tensor], progress: Progress) -> None:
        """Write `tensors` and `progress` atomically to `folder`; see `save_state`."""
        save_state(folder, tensors, progress)

    def load(self, folder: Path, into: Mapping[str, Tensor]) -> Progress | None:
        """Overwrite the values of `into` with the saved ones of the same names.

        Raises:
            CheckpointError: if the file is damaged or of another model; a random state of a
                device that this run does not have is left out.
        """
        path = folder / STATE_FILE
        if not path.exists():
            return None
        with _readable(path) as file:
            names = set(file.keys())
            _check_names(names, set(into))
            for name in sorted(names & set(into)):
                _copy(into[name], file.get_tensor(name), name)
            return _progress(file)

    def finish(self, folder: Path, tensors: Mapping[str, Tensor], progress: Progress) -> None:
        """Do nothing: it is one file."""


def save_state(folder: Path, tensors: Mapping[str, Tensor], progress: Progress) -> None:
    """Write `tensors` and `progress` atomically to `folder`, one tensor in memory at a time.

    What a killed process left of its own try is removed first.

    Raises:
        MobileMoEError: if the disk refuses; the previous state stays.
    """
    for leftover in folder.glob(f".{STATE_FILE}.*.tmp"):
        leftover.unlink(missing_ok=True)
    with atomic_file(folder / STATE_FILE) as file:
        file.write(_header(tensors, progress))
        for tensor in tensors.values():
            file.write(_bytes(tensor))


def load_state(folder: Path, prefix: str = "") -> tuple[dict[str, Tensor], Progress] | None:
    """Return what `save_state` wrote, tensors with `prefix` only; None if nothing was saved yet.

    Raises:
        CheckpointError: if the file is damaged.
    """
    path = folder / STATE_FILE
    if not path.exists():
        return None
    with _readable(path) as file:
        names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118
        return {name: file.get_tensor(name) for name in names}, _progress(file)


def state_sha256(folder: Path) -> str:
    """Return the SHA-256 of the state in `folder`: every name, type, shape, value and the progress.

    Two runs that were trained alike to the bit have the same digest.

    Raises:
        CheckpointError: if there is no state, or it is damaged.
    """
    path, digest = folder / STATE_FILE, sha256()
    if not path.exists():
        raise CheckpointError(f"no training state in {folder}")
    with _readable(path) as file:
        digest.update(json.dumps(_progress(file), sort_keys=True).encode())
        for name in sorted(file.keys()):
            tensor = file.get_tensor(name)
            digest.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
            digest.update(_bytes(tensor))
    return digest.hexdigest()


def take(tensors: dict[str, Tensor], prefix: str, like: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors called `prefix` + name for every name of `like`, shapes checked.

    Raises:
        CheckpointError: if one is missing or has another shape: the state is of another model.
    """
    found = {}
    for name, target in like.items():
        tensor = tensors.get(prefix + name, torch.empty(0))
        _check_shape(tensor, target, prefix + name)
        found[name] = tensor
    return found


@contextmanager
def _readable(path: Path) -> Iterator[Any]:
    """Open a state; any damage that shows while it is read is a `CheckpointError`."""
    try:
        with safe_open(path, "pt") as file:
            yield file
    except CheckpointError:
        raise
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"cannot read the training state {path}: {error}",
            hint="delete it to train this stage from its start",
        ) from error


def _progress(file: Any) -> Progress:
    progress: Progress = json.loads(file.metadata()["progress"])
    return progress


def _header(tensors: Mapping[str, Tensor], progress: Progress) -> bytes:
    """Return the length and the JSON that a safetensors file begins with."""
    entries: dict[str, Any] = {"__metadata__": {"progress": json.dumps(progress, sort_keys=True)}}
    position = 0
    for name, tensor in tensors.items():
        stop = position + tensor.nbytes
        dtype, shape = _DTYPES[tensor.dtype], list(tensor.shape)
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [position, stop]}
        position = stop
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _bytes(tensor: Tensor) -> memoryview:
    plain = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    values: NDArray[np.uint8] = plain.numpy()
    return values.data


def _check_names(saved: set[str], own: set[str]) -> None:
    different = sorted(name for name in saved ^ own if not name.startswith(RANDOM))
    if different:
        where = "is only in the file" if different[0] in saved else "is missing in the file"
        raise CheckpointError(
            f"training state: {different[0]} {where}",
            hint="the run folder belongs to another model or version; choose another folder",
        )


def _copy(target: Tensor, saved: Tensor, name: str) -> None:
    if not name.startswith(RANDOM):
        _check_shape(saved, target, name)
    if saved.shape == target.shape:
        with torch.no_grad():
            target.copy_(saved)


def _check_shape(saved: Tensor, target: Tensor, name: str) -> None:
    if saved.shape != target.shape:
        raise CheckpointError(
            f"training state: {name} is {list(saved.shape)}, the model needs {list(target.shape)}",
            hint="the run folder belongs to another model; choose another folder",
        )
