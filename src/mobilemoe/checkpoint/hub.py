"""A model of the hub as a local folder: `owner/name` in, the snapshot in the cache out.

huggingface_hub does the transport, so HF_TOKEN, HF_HOME, HF_ENDPOINT, HF_HUB_OFFLINE and
HF_HUB_DISABLE_PROGRESS_BARS mean what they always mean. It is imported when a model of the hub
is opened and never before.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from mobilemoe.checkpoint.hub_cache import (
    cache_root,
    cached_sha256,
    cached_snapshot,
    is_commit,
    is_folder,
    is_offline,
    missing_files,
)
from mobilemoe.checkpoint.hub_download import RETRY_WAITS, SMALL_FILES, ask, download
from mobilemoe.checkpoint.hub_errors import Wanted, explain
from mobilemoe.checkpoint.hub_token import TokenStatus, check_token, token_status
from mobilemoe.errors import CheckpointError, MobileMoEError

__all__ = [
    "TokenStatus",
    "cache_root",
    "cached_sha256",
    "check_token",
    "fetch",
    "is_hub_id",
    "split_revision",
    "token_status",
]

_NAME = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?"
_HUB_ID = re.compile(f"{_NAME}/{_NAME}", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+/-]{0,199}", re.ASCII)


def is_hub_id(text: str, revision: str | None = None) -> bool:
    """Whether `text` is `owner/name` or `owner/name@revision`, by the naming rules of the hub.

    What exists here as a path is a path, and so is what only a path can be: `x`, `./x`, `/x`,
    `a/b/c`. Where `owner` is a folder here, `owner/name` is a path too, more likely mistyped
    than on the hub, unless a revision, in `text` or apart, says otherwise. Opens no connection.
    """
    repo_id, within = split_revision(text)
    if not _is_repo_id(repo_id) or os.path.lexists(text):
        return False
    if within is not None or revision is not None:
        return True
    return not is_folder(Path(repo_id.partition("/")[0]))


def split_revision(text: str) -> tuple[str, str | None]:
    """Split `owner/name@revision`; the revision is None where there is no `@`."""
    repo_id, at, revision = text.partition("@")
    return repo_id, revision if at else None


def fetch(repo_id: str, revision: str | None = None, *, weights: bool = True) -> Path:
    """Return the local folder of a model on the hub, complete; download what the cache lacks.

    `repo_id` is `owner/name` or `owner/name@revision`; `revision` is a branch, tag or commit,
    `main` if none is given. Without `weights` only config, tokenizer and chat template come.
    A complete copy in the cache is used as it is where the hub cannot be asked, and without a
    request where `revision` is a full commit. Progress bars go to stderr.

    Raises:
        MobileMoEError: saying what to do, if the repository is gated, private, absent or not of
            this family; for a bad token or revision; without network; if the disk is too small.
    """
    wanted = _wanted(repo_id, revision, weights)
    held = _held(wanted)
    if held is not None and (is_offline() or _is_final(wanted, held)):
        return held
    try:
        listing = ask(wanted, waits=() if held else RETRY_WAITS)
    except Exception as error:
        if held is not None and not _is_missing_revision(error):
            return held
        raise _or_a_folder(explain(error, wanted), repo_id) from error
    return download(wanted, listing)


def _or_a_folder(error: MobileMoEError, text: str) -> MobileMoEError:
    """Return `error` for somebody who meant a folder: until the hub answers, that may be so."""
    if os.path.lexists(text):
        return error
    return type(error)(f"{error.message}; and there is no folder {text} here", hint=error.hint)


def _is_repo_id(text: str) -> bool:
    forbidden = "--" in text or ".." in text or text.endswith(".git")
    return _HUB_ID.fullmatch(text) is not None and not forbidden


def _wanted(text: str, revision: str | None, weights: bool) -> Wanted:
    repo_id, within = split_revision(text)
    if within is not None and revision not in (None, within):
        raise MobileMoEError(
            f"two revisions are given: {within!r} in {text!r}, and {revision!r}",
            hint="give one of them",
        )
    wanted = Wanted(
        repo_id, next((r for r in (revision, within) if r is not None), "main"), weights
    )
    if not _is_repo_id(repo_id):
        raise MobileMoEError(
            f"{text!r} is no repository of the hub; allowed: owner/name or owner/name@revision",
            hint="for example facebook/MobileMoE-S-QAT",
        )
    if not _REVISION.fullmatch(wanted.revision) or ".." in wanted.revision:
        raise MobileMoEError(
            f"revision is {wanted.revision!r}; allowed: a branch, a tag or a commit",
            hint="for example main, or the 40 digits of a commit",
        )
    return wanted


def _held(wanted: Wanted) -> Path | None:
    """Return the cached folder if nothing that is needed is missing."""
    folder = cached_snapshot(wanted.repo_id, wanted.revision)
    try:
        complete = folder is not None and not missing_files(folder, wanted.weights)
    except CheckpointError:  # a damaged index; the hub may have a better one
        return None
    return folder if complete else None


def _is_final(wanted: Wanted, held: Path) -> bool:
    """Whether the hub could add nothing: a commit never changes, and its small files came too."""
    return is_commit(wanted.revision) and (held / SMALL_FILES[-1]).is_file()


def _is_missing_revision(error: Exception) -> bool:
    from huggingface_hub.errors import RevisionNotFoundError

    return isinstance(error, RevisionNotFoundError)
