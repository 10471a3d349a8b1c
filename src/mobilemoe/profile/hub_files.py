"""What the Hugging Face hub has left on this machine: token and cache. Never the network.

The places are those that `huggingface_hub` documents; the token's value is never kept.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from mobilemoe.engine.system_files import read_text

TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
CACHE_VARIABLES = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")
REPOSITORY_PREFIX = "models--facebook--MobileMoE-"  # as the cache names a repository's folder


def token_source(variables: Mapping[str, str] = os.environ) -> str | None:
    """Return where the hub token comes from, a variable's name or a file's path; None: nowhere."""
    for name in TOKEN_VARIABLES:
        if variables.get(name, "").strip():
            return name
    path = _path(variables, "HF_TOKEN_PATH") or hub_home(variables) / "token"
    return str(path) if read_text(path) else None


def hub_home(variables: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of everything that the hub's library stores."""
    cache = _path(variables, "XDG_CACHE_HOME") or _expanded("~/.cache")
    return _path(variables, "HF_HOME") or cache / "huggingface"


def cache_folder(variables: Mapping[str, str] = os.environ) -> Path:
    """Return the folder into which repositories are downloaded; it need not exist."""
    paths = (_path(variables, name) for name in CACHE_VARIABLES)
    return next((path for path in paths if path), hub_home(variables) / "hub")


def cached_models(folder: Path) -> tuple[str, ...]:
    """Return the MobileMoE repositories that have a folder in the cache, complete or not."""
    try:
        found = [path.name for path in folder.glob(f"{REPOSITORY_PREFIX}*") if path.is_dir()]
    except OSError:
        return ()
    return tuple(sorted(name.removeprefix("models--").replace("--", "/") for name in found))


def _path(variables: Mapping[str, str], name: str) -> Path | None:
    value = variables.get(name, "")
    return _expanded(os.path.expandvars(value)) if value else None


def _expanded(path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:  # a process without a home
        return Path(path)
