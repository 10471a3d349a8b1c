"""Checkpoints that every rank writes its share of, readable by any number of ranks.

    STAGE/LATEST                            the name of the folder that counts
    STAGE/checkpoint-00000200/manifest.json     progress, layout, files with their sizes
    STAGE/checkpoint-00000200/shard-*.safetensors

`torch.distributed.checkpoint` writes them, in its safetensors format: its usual one describes
itself in a pickle, which runs code when read; here nothing is ever unpickled. A folder appears
under its name only when all shards are on disk, then LATEST is replaced; the two newest stay.
A single-device `state.safetensors` in STAGE that is further than LATEST is read in its stead.
"""

from __future__ import annotations

import json
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from math import prod
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import (
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from mobilemoe.atomic import atomic_folder, atomic_write
from mobilemoe.errors import CheckpointError, MobileMoEError
from mobilemoe.train.parallel.ranks import Ranks
from mobilemoe.train.parallel.tensors import empty_view, own_view, whole_view
from mobilemoe.train.state import RANDOM, STATE_FILE, Progress, load_state

LATEST, MANIFEST = "LATEST", "manifest.json"
SHARDS = "*.safetensors"
FORMAT = 1
KEPT = 2
NOTHING = "no tensor has this prefix"
NAME = re.compile(r"checkpoint-\d{8,}")


def save_distributed(
    stage_folder: Path, tensors: Mapping[str, Tensor], progress: Progress, ranks: Ranks
) -> Path:
    """Write `tensors`, as this rank has them, and `progress` to a new checkpoint; return it.

    All ranks call it with the same names; `progress["step"]` names the folder. A rank that dies
    on the way, or a disk that refuses, leaves the last checkpoint as it was.

    Raises:
        MobileMoEError: on every rank, if the disk refuses on any.
    """
    folder = stage_folder / f"checkpoint-{int(progress['step']):08d}"
    views = {name: whole_view(tensor, ranks) for name, tensor in tensors.items()}
    is_first = ranks.rank == 0
    with ranks.patience(), ExitStack() as becoming:
        temporary = ""
        with _together(ranks):
            if is_first:
                temporary = str(becoming.enter_context(atomic_folder(folder)))
        temporary = ranks.from_first(temporary)
        _write(Path(temporary), views, ranks)
        with _together(ranks):
            if is_first:
                atomic_write(Path(temporary) / MANIFEST, _manifest(temporary, progress, ranks))
                becoming.close()  # from here on the folder has its name
                atomic_write(stage_folder / LATEST, folder.name + "\n")
                _prune(stage_folder, folder)
                _forget_later_file(stage_folder, folder)
    return folder


def load_distributed(
    stage_folder: Path, like: Mapping[str, Tensor], ranks: Ranks
) -> tuple[dict[str, Tensor], Progress] | None:
    """Return the newest checkpoint's tensors, placed as those of `like`; None if there is none.

    `like` gives names, shapes and places; its values are not read and not changed. Which ranks
    wrote the checkpoint does not matter. A random state that was not saved, as of a GPU by a run
    without one, is left out.

    Raises:
        CheckpointError: if the checkpoint is damaged, incomplete or of another model.
    """
    found = _newest(stage_folder)
    if found is None:
        return None
    folder, progress = found
    views = {name: empty_view(tensor, ranks) for name, tensor in like.items()}
    reader = HuggingFaceStorageReader(str(folder))
    with ranks.patience(), _damage(folder):
        saved = reader.read_metadata().state_dict_metadata
        views = {n: view for n, view in views.items() if n in saved or not n.startswith(RANDOM)}
        _check_contents(saved, views)
        with _quiet():
            load(views, storage_reader=reader, no_dist=ranks.size == 1)
    return {name: own_view(view, like[name]) for name, view in views.items()}, progress


def forget_distributed(stage_folder: Path) -> None:
    """Remove the checkpoints of several processes: a single-device state took their place."""
    (stage_folder / LATEST).unlink(missing_ok=True)
    for path in stage_folder.iterdir():
        if NAME.fullmatch(path.name):
            shutil.rmtree(path)


def _newest(stage_folder: Path) -> tuple[Path, Progress] | None:
    """Return the folder and progress of whichever is further: LATEST or the single-device state."""
    single = load_state(stage_folder, NOTHING)
    pointer = stage_folder / LATEST
    if not pointer.exists():
        return None if single is None else (stage_folder, single[1])
    name = pointer.read_text(encoding="utf-8").strip()
    folder = stage_folder / name
    if not NAME.fullmatch(name) or not folder.is_dir():
        raise CheckpointError(
            f"{pointer} names {name[:80]!r}, which is no checkpoint beside it",
            hint="write the name of a complete checkpoint folder into it, or delete it",
        )
    progress = _checked(folder)
    if single is not None and int(single[1]["step"]) > int(progress["step"]):
        return stage_folder, single[1]
    return folder, progress


def _write(folder: Path, views: dict[str, Tensor], ranks: Ranks) -> None:
    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    try:
        with _quiet():
            save(views, storage_writer=writer, no_dist=ranks.size == 1)
    except (CheckpointException, OSError) as error:
        raise MobileMoEError(
            f"cannot write checkpoint {folder.parent}: {_cause(error)}; the last one is untouched",
            hint="free some space or check the path's permissions, then go on with --resume",
        ) from error


def _cause(error: BaseException) -> str:
    """Return the ranks' own errors: the library's wrapper prints whole stacks."""
    failures: dict[int, tuple[BaseException, object]] = getattr(error, "failures", {})
    own = [f"rank {rank}: {failure[0]}" for rank, failure in failures.items()]
    return "; ".join(own) or str(error)


def _manifest(folder: str, progress: Progress, ranks: Ranks) -> str:
    files = {path.name: path.stat().st_size for path in sorted(Path(folder).glob(SHARDS))}
    return json.dumps(
        {
            "format": FORMAT,
            "progress": progress,
            "ranks": ranks.size,
            "expert_parallel": ranks.expert_parallel,
            "files": files,
        },
        indent=2,
    )


def _checked(folder: Path) -> Progress:
    """Return the progress of a checkpoint whose files are all there and as long as written."""
    with _damage(folder):
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            raise ValueError(f"format {manifest['format']}; allowed: {FORMAT}")
        there = {path.name: path.stat().st_size for path in folder.glob(SHARDS)}
        if there != manifest["files"]:
            different = sorted(set(there.items()) ^ set(manifest["files"].items()))
            raise ValueError(f"{different[0][0]} is missing, extra or of another length")
        progress: Progress = dict(manifest["progress"])
        int(progress["step"])
        return progress


def _check_contents(saved: Mapping[str, object], wanted: Mapping[str, Tensor]) -> None:
    """Every wanted tensor must be there in its shape, covered by its pieces, and no other."""
    for name in sorted(set(saved) - set(wanted)):
        if not name.startswith(RANDOM):
            raise CheckpointError(
                f"checkpoint: {name} is only in the file",
                hint="the run folder belongs to another model or version; choose another folder",
            )
    for name, tensor in wanted.items():
        entry = saved.get(name)
        shape = list(entry.size) if isinstance(entry, TensorStorageMetadata) else None
        if not isinstance(entry, TensorStorageMetadata) or shape != list(tensor.shape):
            raise CheckpointError(
                f"checkpoint: {name} is {shape}, the model needs {list(tensor.shape)}",
                hint="the run folder belongs to another model; choose another folder",
            )
        if sum(prod(chunk.sizes) for chunk in entry.chunks) != tensor.numel():
            raise ValueError(f"the pieces of {name} do not make the whole")


@contextmanager
def _damage(folder: Path) -> Iterator[None]:
    """Turn whatever a damaged file causes into one error."""
    try:
        yield
    except MobileMoEError:
        raise
    except (
        SafetensorError,
        CheckpointException,
        OSError,
        LookupError,
        AttributeError,
        TypeError,
        ValueError,
        AssertionError,
        RuntimeError,
    ) as error:
        raise CheckpointError(
            f"cannot read the checkpoint {folder}: {_cause(error)}",
            hint=f"write the name of the checkpoint before it into {LATEST} beside it",
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Drop the library's remark that a single process is a single process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
        yield


@contextmanager
def _together(ranks: Ranks) -> Iterator[None]:
    """Do something that may fail on one rank only; then all ranks fail."""
    error: MobileMoEError | None = None
    try:
        yield
    except MobileMoEError as own:
        error = own
    except OSError as own:
        error = MobileMoEError(f"cannot write the checkpoint: {own}")
    failed = torch.zeros(ranks.size)
    failed[ranks.rank] = float(error is not None)
    failed = ranks.total(failed)
    if error is not None:
        raise error
    if failed.any():
        raise MobileMoEError(
            f"rank {int(failed.argmax())} could not write the checkpoint; the last one stays",
            hint="its own message says why",
        )


def _prune(stage_folder: Path, current: Path) -> None:
    """Keep `current` and the one before; later ones are of a future that was given up."""
    folders = sorted(path for path in stage_folder.iterdir() if NAME.fullmatch(path.name))
    earlier = [path for path in folders if _step(path) <= _step(current)]
    for path in set(folders) - set(earlier[-KEPT:]):
        shutil.rmtree(path)
    for path in stage_folder.glob(".checkpoint-*.tmp-*"):  # of writers that were killed
        shutil.rmtree(path)


def _forget_later_file(stage_folder: Path, current: Path) -> None:
    """Remove a single-device state that is further: it is of a future that was given up."""
    single = load_state(stage_folder, NOTHING)
    if single is not None and int(single[1]["step"]) > _step(current):
        (stage_folder / STATE_FILE).unlink()


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("checkpoint-"))
