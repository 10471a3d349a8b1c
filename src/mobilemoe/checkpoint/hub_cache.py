"""What huggingface_hub's cache on this machine holds, found without a request.

`<cache>/models--owner--name/` has `refs/<revision>` (a commit), `snapshots/<commit>/<file>`
(links) and `blobs/<name>` (content; the name of a large file is its SHA-256).
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from mobilemoe.checkpoint.config_file import CONFIG_FILE
from mobilemoe.checkpoint.shards import INDEX_FILE, SINGLE_FILE, shard_names
from mobilemoe.errors import CheckpointError

_COMMIT = re.compile(r"[0-9a-f]{40}", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_MAX_LINKS = 8
# What huggingface_hub reads for the place of its cache, the first that is set.
_VARIABLES = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HOME")


def is_commit(revision: str) -> bool:
    """Whether `revision` is a full commit hash, whose content never changes."""
    return _COMMIT.fullmatch(revision) is not None


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids every request."""
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE


def cache_root() -> Path:
    """Return the folder of all cached repositories, as HF_HOME and HF_HUB_CACHE say.

    Absolute and without links, as in the paths that the library returns.

    Raises:
        CheckpointError: naming the variable, if it names a home that is not there, links in a
            circle, or what may not be looked at.
    """
    from huggingface_hub import constants

    try:
        return Path(constants.HF_HUB_CACHE).expanduser().resolve()
    except (OSError, RuntimeError) as error:
        variable = next((name for name in _VARIABLES if os.environ.get(name)), _VARIABLES[-1])
        raise CheckpointError(
            f"{variable} places the hub's cache at {constants.HF_HUB_CACHE}, which cannot be "
            f"used: {error}",
            hint=f"set {variable} to a folder that you can write to, or unset it",
        ) from error


def is_folder(path: Path) -> bool:
    """Whether `path` is a folder; not so where looking is forbidden."""
    return os.path.isdir(path)  # noqa: PTH112  (Path.is_dir raises there)


def repo_cache(repo_id: str) -> Path:
    """Return the folder of the cache that belongs to one model repository."""
    return cache_root() / "--".join(("models", *repo_id.split("/")))


def cached_snapshot(repo_id: str, revision: str) -> Path | None:
    """Return the folder of `revision` if its config.json is cached; more may be missing."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo_id, CONFIG_FILE, cache_dir=cache_root(), revision=revision)
    return Path(found).parent if isinstance(found, str) else None


def missing_files(folder: Path, weights: bool) -> tuple[str, ...]:
    """Return which files a checkpoint needs and `folder` lacks.

    Raises:
        CheckpointError: if `folder` holds a shard index that is damaged or hostile.
    """
    needed: tuple[str, ...] = (CONFIG_FILE,)
    if weights:
        sharded = (folder / INDEX_FILE).is_file() and not (folder / SINGLE_FILE).is_file()
        needed += shard_names(folder / INDEX_FILE) if sharded else (SINGLE_FILE,)
    return tuple(name for name in needed if not (folder / name).is_file())


def state_in_cache(repo_id: str, revision: str, weights: bool) -> str:
    """Say in a clause what the cache has of this revision, for an error message."""
    folder = cached_snapshot(repo_id, revision)
    if folder is None:
        return f"{repo_id} (revision {revision}) is not in the cache {cache_root()}"
    missing = missing_files(folder, weights)
    if not missing:
        return f"an older copy is in the cache: {folder} (HF_HUB_OFFLINE=1 opens it)"
    more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    return f"the copy in the cache, {folder}, is incomplete: no {', '.join(missing[:3])}{more}"


def check_space(repo_id: str, needed: int) -> None:
    """Compare `needed` bytes with what the file system of the cache has free.

    Raises:
        CheckpointError: with both figures, if they do not fit.
    """
    place = cache_root()
    while not is_folder(place) and place != place.parent:
        place = place.parent
    try:
        free = shutil.disk_usage(place).free
    except OSError:
        return  # the download itself will say what is wrong with this folder
    if needed > free:
        raise CheckpointError(
            f"the disk is too small: {repo_id} needs {_megabytes(needed)} more, "
            f"{cache_root()} has {_megabytes(free)} free",
            hint="free some space, or set HF_HOME to a folder on a larger disk",
        )


def cached_sha256(path: Path) -> str | None:
    """Return the SHA-256 that the hub states for the content of a cached large file.

    None if `path` is not in a hub cache, is a small file (named by another hash), or was copied
    because the system has no links. The links are followed one by one: newer versions of the
    library link the blob on to a store whose names look alike and are no SHA-256.
    """
    for _ in range(_MAX_LINKS):
        path = path.parent.resolve() / path.name
        if path.parent.name == "blobs" and path.parent.parent.name.startswith("models--"):
            return path.name if _SHA256.fullmatch(path.name) else None
        if not path.is_symlink():
            return None
        path = path.parent / path.readlink()
    return None


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
