"""Weights in several files: the index that says which tensor lies where."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mobilemoe.checkpoint.header import printable
from mobilemoe.checkpoint.layout import StoredTensor
from mobilemoe.checkpoint.shard_names import check_shard_name
from mobilemoe.checkpoint.text_files import read_json_object
from mobilemoe.errors import CheckpointError

if TYPE_CHECKING:
    from mobilemoe.checkpoint.tensor_file import TensorFile

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
INDEX_KEYS = frozenset({"metadata", "weight_map"})


def weight_files(folder: Path) -> tuple[Path, ...]:
    """Return the safetensors files of `folder`: the single one, or those of the index.

    Raises:
        CheckpointError: if there is neither, or the index names anything but plain files of
            the same folder.
    """
    single, index = folder / SINGLE_FILE, folder / INDEX_FILE
    if single.exists() or single.is_symlink() or not index.exists():
        return (single,)
    names = shard_names(index)
    for name in names:
        if not (folder / name).is_file():
            raise CheckpointError(
                f"{folder}: {INDEX_FILE} names {name}, which is not there",
                hint="the download is incomplete; fetch the checkpoint again",
            )
    return tuple(folder / name for name in names)


def shard_names(index: Path) -> tuple[str, ...]:
    """Return the distinct file names of an index, sorted; raises as `read_weight_map`."""
    return tuple(sorted(set(read_weight_map(index).values())))


def read_weight_map(index: Path) -> Mapping[str, str]:
    """Return tensor name -> file name from a `model.safetensors.index.json`.

    Raises:
        CheckpointError: if it is malformed or a file name is not a plain name.
    """
    values = read_json_object(index)
    unknown = sorted(set(values) - INDEX_KEYS)
    if unknown:
        raise CheckpointError(f"{index}: unknown key {unknown[0]!r}; allowed: {sorted(INDEX_KEYS)}")
    weight_map = values.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index}: weight_map is missing or empty", hint="fetch it again")
    try:
        return {tensor: check_shard_name(name) for tensor, name in weight_map.items()}
    except CheckpointError as error:
        raise CheckpointError(f"{index}: {error.message}", hint=error.hint) from error


def split_layout(
    layout: Iterable[StoredTensor], shard_bytes: int | None
) -> dict[str, tuple[StoredTensor, ...]]:
    """Return file name -> tensors: one file, or files of at most `shard_bytes` of tensors.

    A tensor is never split; one that is larger than `shard_bytes` has a file of its own.
    """
    groups = list(_groups(layout, shard_bytes))
    if len(groups) == 1:
        return {SINGLE_FILE: groups[0]}
    count = len(groups)
    return {f"model-{i:05d}-of-{count:05d}.safetensors": g for i, g in enumerate(groups, start=1)}


def _groups(
    layout: Iterable[StoredTensor], shard_bytes: int | None
) -> Iterator[tuple[StoredTensor, ...]]:
    group: list[StoredTensor] = []
    size = 0
    for tensor in layout:
        if group and shard_bytes is not None and size + tensor.nbytes > shard_bytes:
            yield tuple(group)
            group, size = [], 0
        group.append(tensor)
        size += tensor.nbytes
    yield tuple(group)


def encode_index(files: Mapping[str, Iterable[StoredTensor]]) -> str:
    """Return the text of the index of `files`, as other libraries write it."""
    placed = {tensor.name: (name, tensor) for name, group in files.items() for tensor in group}
    total = sum(tensor.nbytes for _, tensor in placed.values())
    weight_map = {tensor: name for tensor, (name, _) in sorted(placed.items())}
    values = {"metadata": {"total_size": total}, "weight_map": weight_map}
    return json.dumps(values, indent=2) + "\n"


def check_placement(folder: Path, homes: Mapping[str, TensorFile]) -> None:
    """Compare the index, if the weights have one, with where the tensors really are.

    Raises:
        CheckpointError: naming the first tensor that is not in the file that the index names.
    """
    if all(file.path.name == SINGLE_FILE for file in homes.values()):
        return
    weight_map = read_weight_map(folder / INDEX_FILE)
    for name in sorted(set(weight_map) | set(homes)):
        said = weight_map.get(name, "no file")
        real = homes[name].path.name if name in homes else "no file"
        if said != real:
            raise CheckpointError(
                f"{folder}: {INDEX_FILE} says {printable(name)} is in {said}; it is in {real}",
                hint="the files do not belong together; fetch the checkpoint again",
            )
