"""Where the hub's access token comes from. Its value is never shown."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mobilemoe.errors import CheckpointError

TokenSource = Literal["environment", "file", "unreadable file", "none"]
TOKENS_PAGE = "https://huggingface.co/settings/tokens"
# The variables that huggingface_hub reads, the older name last.
_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


@dataclass(frozen=True)
class TokenStatus:
    """Where a token was found, and whether huggingface_hub sends it.

    `where` is the name of the variable or the path of the file, empty if there is none; `sent`
    is false without a token and where HF_HUB_DISABLE_IMPLICIT_TOKEN forbids it. `malformed`:
    it holds a character that no header may hold, and `check_token` refuses it.
    """

    source: TokenSource
    where: str
    sent: bool
    malformed: bool = False


def token_status() -> TokenStatus:
    """Say where a token comes from; looks at the environment and one file, never at the network."""
    from huggingface_hub import constants

    source, where, token = _find_token()
    sent = bool(token) and not constants.HF_HUB_DISABLE_IMPLICIT_TOKEN
    return TokenStatus(source, where, sent, _is_malformed(token))


def check_token() -> None:
    """Refuse a token that cannot be one, before any request carries it.

    Raises:
        CheckpointError: if the token file cannot be read, or the token holds a character that
            cannot stand in a header (the error of the HTTP library would show the token).
    """
    source, where, token = _find_token()
    if source == "unreadable file":
        raise CheckpointError(
            f"cannot read the token file {where}",
            hint="check its permissions, or set HF_TOKEN",
        )
    if _is_malformed(token):
        raise CheckpointError(
            f"the token from {where} holds a space or a character beyond ASCII",
            hint=f"copy it again from {TOKENS_PAGE}; a token looks like hf_ and letters",
        )


def hide_token(text: str) -> str:
    """Return `text` with the token, should it stand in it, replaced."""
    token = _find_token()[2]
    return text.replace(token, "***") if token else text


def _find_token() -> tuple[TokenSource, str, str]:
    """Return source, place and value, in the order in which huggingface_hub looks."""
    from huggingface_hub import constants

    variable = next((name for name in _VARIABLES if os.environ.get(name)), "")
    if token := _clean(os.environ.get(variable, "")):
        return "environment", variable, token
    path = Path(constants.HF_TOKEN_PATH)
    try:
        token = _clean(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return "none", "", ""
    except (OSError, ValueError):
        return "unreadable file", str(path), ""
    return ("file", str(path), token) if token else ("none", "", "")


def _is_malformed(token: str) -> bool:
    return not all("!" <= character <= "~" for character in token)


def _clean(token: str) -> str:
    """Drop what huggingface_hub drops."""
    return token.replace("\r", "").replace("\n", "").strip()
