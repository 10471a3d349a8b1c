"""Bringing one commit of a hub repository into the cache, file by named file.

Only the files named here and the shards of a checked index are fetched: no code, no pickles, no
folders. The order matters. config.json comes first, so that a foreign model costs a few
kilobytes; then the shard index; then the tokenizer; the weights last, so that weights in the
cache mean that all of it is there. A branch's name moves to a new commit when that is complete.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from mobilemoe.checkpoint.config_file import CONFIG_FILE, read_config
from mobilemoe.checkpoint.hub_cache import (
    cache_root,
    cached_snapshot,
    check_space,
    is_commit,
    repo_cache,
)
from mobilemoe.checkpoint.hub_errors import SERVER_STATUSES, Wanted, explain, status_of
from mobilemoe.checkpoint.hub_token import check_token
from mobilemoe.checkpoint.shards import INDEX_FILE, SINGLE_FILE, shard_names
from mobilemoe.checkpoint.text_files import read_json_object
from mobilemoe.config import MODEL_TYPE
from mobilemoe.errors import CheckpointError

# tokenizer.json is the last: where it is, the small files before it are.
SMALL_FILES = (
    "generation_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "tokenizer_config.json",
    "tokenizer.json",
)
SMALL_LIMIT = 100_000_000  # bytes; a Llama-3 tokenizer.json has 17 MB
RETRY_WAITS = (1.0, 2.0)  # seconds; for the one request that the library does not repeat


@dataclass(frozen=True)
class RemoteFile:
    """What the hub says of one file; None where it does not say."""

    size: int | None
    blob: str | None  # its name in the cache: SHA-256 of a large file, git hash of a small one


@dataclass(frozen=True)
class Listing:
    """One commit of a repository and its files."""

    commit: str
    files: Mapping[str, RemoteFile]


def ask(wanted: Wanted, waits: tuple[float, ...]) -> Listing:
    """Ask the hub for commit and files; after a server error again, `waits` seconds apart."""
    from huggingface_hub import HfApi, constants

    check_token()
    api = HfApi(library_name="mobilemoe", library_version=version("mobilemoe"))
    for wait in (*waits, None):
        try:
            info = api.model_info(
                wanted.repo_id,
                revision=wanted.revision,
                files_metadata=True,
                timeout=constants.HF_HUB_ETAG_TIMEOUT,
            )
            break
        except Exception as error:
            if wait is None or status_of(error) not in SERVER_STATUSES:
                raise
            time.sleep(wait)
    files = {
        sibling.rfilename: RemoteFile(
            sibling.size, sibling.lfs.sha256 if sibling.lfs else sibling.blob_id
        )
        for sibling in info.siblings or ()
    }
    if info.sha is None or not is_commit(info.sha):
        raise CheckpointError(
            f"{constants.ENDPOINT} answers with commit {info.sha!r} for {wanted.repo_id}",
            hint="is HF_ENDPOINT the address of a hub?",
        )
    return Listing(info.sha, files)


def download(wanted: Wanted, listing: Listing) -> Path:
    """Bring config, index, small files and weights, in this order, and return their folder."""
    _check_listed(wanted, listing, CONFIG_FILE)
    if cached_snapshot(wanted.repo_id, wanted.revision) is None:
        _bring(wanted, listing, CONFIG_FILE, wanted.revision)  # by name: the cache notes the commit
    folder = _bring(wanted, listing, CONFIG_FILE).parent
    _check_family(wanted, folder / CONFIG_FILE)
    names = [name for name in SMALL_FILES if name in listing.files]
    if wanted.weights:
        names += _weight_files(wanted, listing)
    for name in names:
        _check_listed(wanted, listing, name)
    check_space(wanted.repo_id, sum(_sizes_to_come(wanted, listing, folder, names)))
    for name in names:
        _bring(wanted, listing, name)
    if cached_snapshot(wanted.repo_id, wanted.revision) != folder:
        with contextlib.suppress(Exception):  # only so that the name is found offline
            _bring(wanted, listing, CONFIG_FILE, wanted.revision)
    return folder


def _weight_files(wanted: Wanted, listing: Listing) -> list[str]:
    """Return the names of the weight files; brings the index first, and refuses a hostile one."""
    if SINGLE_FILE in listing.files:
        return [SINGLE_FILE]
    if INDEX_FILE not in listing.files:
        pickled = any(name.endswith((".bin", ".pt", ".pth", ".pkl")) for name in listing.files)
        why = "its pickled weights are not read: a pickle can run code; "
        raise CheckpointError(
            f"{wanted.repo_id} (revision {wanted.revision}) has neither {SINGLE_FILE} "
            f"nor {INDEX_FILE}",
            hint=f"{why if pickled else ''}is this the repository of a MobileMoE checkpoint?",
        )
    _check_listed(wanted, listing, INDEX_FILE)
    return list(shard_names(_bring(wanted, listing, INDEX_FILE)))


def _check_listed(wanted: Wanted, listing: Listing, name: str) -> None:
    """Refuse a file that the hub does not have, or one that is far larger than it can be."""
    if name not in listing.files:
        raise CheckpointError(
            f"{wanted.repo_id} (revision {wanted.revision}) has no {name}",
            hint=f"is it a MobileMoE checkpoint, and complete? see {wanted.page}/tree/main",
        )
    size = listing.files[name].size or 0
    if size > SMALL_LIMIT and not name.endswith(".safetensors"):
        raise CheckpointError(
            f"{wanted.repo_id}: {name} has {size} bytes; allowed: up to {SMALL_LIMIT}",
            hint="do not trust this checkpoint",
        )


def _check_family(wanted: Wanted, path: Path) -> None:
    """Refuse a model of another family before anything large is fetched."""
    try:
        kind = read_json_object(path).get("model_type")
        if kind == MODEL_TYPE:
            read_config(path)
            return
    except CheckpointError as error:
        raise CheckpointError(f"{wanted.repo_id}: {error.message}", hint=error.hint) from error
    raise CheckpointError(
        f"{wanted.repo_id}: model_type is {kind!r:.80}; allowed: {MODEL_TYPE!r}",
        hint="only checkpoints of the MobileMoE family are read; no weights were fetched",
    )


def _sizes_to_come(
    wanted: Wanted, listing: Listing, folder: Path, names: list[str]
) -> Iterator[int]:
    """Yield the stated size of every file whose content is not in the cache yet."""
    blobs = repo_cache(wanted.repo_id) / "blobs"
    for name in names:
        file = listing.files[name]
        present = (folder / name).is_file() or (file.blob and (blobs / file.blob).is_file())
        if not present:
            yield file.size or 0


def _bring(wanted: Wanted, listing: Listing, name: str, revision: str | None = None) -> Path:
    """Return the cached file `name` of the listed commit, or of `revision`; fetch it if need be.

    Raises:
        MobileMoEError: if it cannot be fetched, or has another size than the hub states.
    """
    from huggingface_hub import hf_hub_download

    try:
        path = Path(
            hf_hub_download(
                wanted.repo_id,
                name,
                revision=revision or listing.commit,
                cache_dir=cache_root(),
                library_name="mobilemoe",
                library_version=version("mobilemoe"),
            )
        )
    except Exception as error:
        raise explain(error, wanted) from error
    actual, size = path.stat().st_size, listing.files[name].size
    if size is not None and actual != size and revision is None:
        raise CheckpointError(
            f"damaged file {path}: it has {actual} bytes, the hub states {size}",
            hint=f"delete {path.resolve()} and run again",
        )
    return path
