"""What went wrong on the way to the hub, in the words of somebody who wants the model.

huggingface_hub runs on another HTTP library in each of its major versions, so an error is told
by the hub's own classes, by its HTTP status and by the package that raised it.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

from mobilemoe.checkpoint.hub_cache import cache_root, state_in_cache
from mobilemoe.checkpoint.hub_token import TOKENS_PAGE, hide_token, token_status
from mobilemoe.errors import CheckpointError, MobileMoEError

HUB_PAGE = "https://huggingface.co"
SERVER_STATUSES = frozenset({408, 429, *range(500, 600)})

_HTTP_PACKAGES = frozenset(
    {"requests", "urllib3", "httpx", "httpcore", "httpx2", "httpcore2", "h11", "ssl", "socket"}
)
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_SHOWN = 300  # characters of a foreign message


@dataclass(frozen=True)
class Wanted:
    """Which repository is asked for, at which branch, tag or commit, with or without weights."""

    repo_id: str
    revision: str
    weights: bool

    @property
    def page(self) -> str:
        """The repository's page, where its licence is accepted."""
        return f"{HUB_PAGE}/{self.repo_id}"


def explain(error: Exception, wanted: Wanted) -> MobileMoEError:
    """Return the error to raise for what huggingface_hub raised while it served `wanted`.

    Where the hub could not be reached, the message says what the cache holds.
    """
    if isinstance(error, MobileMoEError):
        return error
    cause = _cause(error)
    if (reason := _unreachable(cause)) is not None:
        message, hint = reason
        held = state_in_cache(wanted.repo_id, wanted.revision, wanted.weights)
        return CheckpointError(f"{message}; {held}", hint=hint)
    for rule in (_access, _absence, _disk):
        if (found := rule(cause, wanted)) is not None:
            return found
    return CheckpointError(
        f"the download of {wanted.repo_id} failed: {type(cause).__name__}: {_clean(cause)}",
        hint="run again: finished files are kept; is HF_ENDPOINT the address of a hub?",
    )


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status that an error of the hub carries."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _cause(error: BaseException) -> BaseException:
    """Return the reason behind "not in the cache, and the hub could not be asked"."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    while isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _unreachable(error: BaseException) -> tuple[str, str] | None:
    """Return message and hint if there is no way to the hub, now or at all."""
    from huggingface_hub import constants
    from huggingface_hub.errors import OfflineModeIsEnabled

    if isinstance(error, OfflineModeIsEnabled):
        return (
            "offline mode is on (HF_HUB_OFFLINE)",
            "unset HF_HUB_OFFLINE and run once with a connection, or give a folder",
        )
    status = status_of(error)
    if status in SERVER_STATUSES:
        return (
            f"the hub at {constants.ENDPOINT} answers with HTTP status {status}: {_clean(error)}",
            "wait a few minutes and run again: finished files are kept",
        )
    package = type(error).__module__.split(".")[0]
    if status is None and (
        isinstance(error, (ConnectionError, TimeoutError)) or package in _HTTP_PACKAGES
    ):
        return (
            f"cannot reach the hub at {constants.ENDPOINT}: {type(error).__name__}: "
            f"{_clean(error)}",
            "check the network, a proxy (HTTPS_PROXY) and HF_ENDPOINT, and run again: finished "
            "files are kept; or download elsewhere and give the folder",
        )
    return None


def _access(error: BaseException, wanted: Wanted) -> CheckpointError | None:
    """Explain a refusal for want of rights."""
    from huggingface_hub.errors import GatedRepoError

    status, token = status_of(error), token_status()
    if isinstance(error, GatedRepoError):
        return _gated(wanted, with_token=status == 403)
    if "invalid credentials" in str(error).lower() or (status == 401 and token.sent):
        return CheckpointError(
            f"the hub does not accept the token from {token.where or 'your login'}",
            hint=f"make a new one at {TOKENS_PAGE}, or remove it if the model is public",
        )
    if status == 403:
        return CheckpointError(
            f"the hub refuses {wanted.repo_id}: {_clean(error)}",
            hint=f"the token needs read access to gated repositories, see {TOKENS_PAGE}; "
            f"the conditions are at {wanted.page}",
        )
    return None


def _gated(wanted: Wanted, with_token: bool) -> CheckpointError:
    page = f"{wanted.page} (MobileMoE: FAIR Noncommercial Research License)"
    if with_token:
        return CheckpointError(
            f"{wanted.repo_id} is gated, and the account of the token from "
            f"{token_status().where or 'your login'} has no access to it",
            hint=f"accept the licence at {page} with that account and wait until access is "
            "granted; the token must be allowed to read gated repositories",
        )
    return CheckpointError(
        f"{wanted.repo_id} is gated: it needs an accepted licence and a token, and no token "
        "was sent",
        hint=f"accept the licence at {page}, make a read token at {TOKENS_PAGE}, and set it as "
        "HF_TOKEN",
    )


def _absence(error: BaseException, wanted: Wanted) -> CheckpointError | None:
    """Explain that a repository, a revision or a file is not there."""
    from huggingface_hub.errors import (
        EntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, RevisionNotFoundError):
        return CheckpointError(
            f"{wanted.repo_id} has no revision {wanted.revision!r}",
            hint=f"give a branch, a tag or a commit of {wanted.page}/commits/main",
        )
    if isinstance(error, EntryNotFoundError):
        return CheckpointError(
            f"a file of {wanted.repo_id} at revision {wanted.revision!r} is gone: {_clean(error)}",
            hint="the repository is being changed; run again",
        )
    if isinstance(error, RepositoryNotFoundError):
        token = "" if token_status().sent else " (no token was sent)"
        return CheckpointError(
            f"the hub has no repository {wanted.repo_id}, or it is private{token}",
            hint="check the spelling; a private repository needs HF_TOKEN",
        )
    return None


def _disk(error: BaseException, wanted: Wanted) -> CheckpointError | None:
    """Explain a full disk, a cache that cannot be written, and a download of the wrong size."""
    text = str(error)
    if _code(error) in _FULL or "No space left on device" in text:
        return CheckpointError(
            f"the disk is full: {wanted.repo_id} could not be written whole to {cache_root()}",
            hint="free some space, or set HF_HOME to a folder on a larger disk, and run again: "
            "finished files are kept",
        )
    if "Consistency check failed" in text:
        return CheckpointError(
            f"damaged download of {wanted.repo_id}: {_clean(error)}",
            hint="run again: a damaged file is not kept; a proxy may be cutting downloads",
        )
    if _code(error) is not None and status_of(error) is None:
        return CheckpointError(
            f"cannot write to the cache {cache_root()}: {_clean(error)}",
            hint="check its permissions, or set HF_HOME to a folder that you can write to",
        )
    return None


def _code(error: BaseException) -> int | None:
    return error.errno if isinstance(error, OSError) else None


def _clean(error: BaseException) -> str:
    """Return one line of a foreign message, without control characters and without the token."""
    text = hide_token(str(getattr(error, "server_message", None) or error))
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
