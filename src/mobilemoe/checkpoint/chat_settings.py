"""Where a checkpoint keeps its chat template and the names of its special tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobilemoe.errors import CheckpointError

SETTINGS = "tokenizer_config.json"
TEMPLATE = "chat_template.jinja"
MAX_SETTINGS_BYTES = 8 * 2**20  # the released file has about 60 kB
MAX_TEMPLATE_BYTES = 64 * 2**10


@dataclass(frozen=True)
class ChatSettings:
    """A template and the special tokens that it may print; "" is a token that is not set."""

    template: str
    bos_token: str
    eos_token: str


def read_chat_settings(folder: Path) -> ChatSettings:
    """Read the chat template of `folder`.

    `chat_template.jinja` comes before `chat_template` in tokenizer_config.json, which is text or
    a list of named templates; of these, "default" is taken.

    Raises:
        CheckpointError: if there is no template (a Base model), or a file cannot be read.
    """
    path = Path(folder) / SETTINGS
    settings = _read_settings(path)
    template = _read_template_file(Path(folder) / TEMPLATE)
    if template is None:
        template = _template_of(path, settings.get("chat_template"))
    if template is None:
        raise CheckpointError(
            f"{folder} has no chat template: it is a Base model",
            hint="use `mobilemoe generate`, or an SFT or QAT checkpoint",
        )
    bos, eos = (_token_text(path, name, settings.get(name)) for name in ("bos_token", "eos_token"))
    return ChatSettings(template, bos, eos)


def _template_of(path: Path, value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    try:
        named = {entry["name"]: entry["template"] for entry in value}
    except (TypeError, KeyError, IndexError):
        named = {}
    if not isinstance(named.get("default"), str):
        raise CheckpointError(
            f"{path}: chat_template is {value!r:.80}; "
            'allowed: text, null, or a list of {"name", "template"} with a "default"',
            hint="take tokenizer_config.json from the release again",
        )
    default: str = named["default"]
    return default


def _token_text(path: Path, name: str, token: Any) -> str:
    """Return a special token's text; tokenizer_config.json may hold null or an object."""
    if isinstance(token, dict):
        token = token.get("content")
    if token is not None and not isinstance(token, str):
        raise CheckpointError(f"{path}: {name} is {token!r}; allowed: text or null")
    return token or ""


def _read_settings(path: Path) -> Mapping[str, Any]:
    text = _read_text(path, MAX_SETTINGS_BYTES)
    if text is None:
        return {}
    try:
        settings = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error
    if not isinstance(settings, dict):
        raise CheckpointError(f"{path}: is not a JSON object")
    return settings


def _read_template_file(path: Path) -> str | None:
    return _read_text(path, MAX_TEMPLATE_BYTES)


def _read_text(path: Path, limit: int) -> str | None:
    """Return the text of `path`, None if there is no such file; never read beyond `limit`."""
    try:
        with path.open("rb") as file:
            raw = file.read(limit + 1)
        if len(raw) > limit:
            raise ValueError(f"it is larger than {limit} bytes")
        return raw.decode()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error
