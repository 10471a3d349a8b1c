"""Lines about what is around the engine: disk, hub, licences and versions."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path

from mobilemoe.checkpoint.hub import TokenStatus
from mobilemoe.config import ModelConfig
from mobilemoe.profile.findings import Line, measured
from mobilemoe.profile.machine import versions

DOWNLOADS = ("S", "M", "L")
PACKAGES = ("mobilemoe", "numpy", "tokenizers", "safetensors", "huggingface_hub", "torch")
REPOSITORY_PREFIX = "models--facebook--MobileMoE-"  # as the cache names a repository's folder
WEIGHTS_LICENCE = "FAIR Noncommercial Research License"
CODE_LICENCE = "Apache-2.0"


def disk_lines(cache: Path | None, folder: Path) -> Iterator[Line]:
    """Say what is free where models are downloaded and written, and what a download needs.

    `cache` is None where its place cannot be found out.
    """
    free = None if cache is None else free_bytes(cache)
    if cache is None:
        yield measured("disk", "hub_cache", None, "its place cannot be used")
    else:
        made = os.path.exists(cache)  # noqa: PTH110  (Path.exists raises where it is forbidden)
        yield measured("disk", "hub_cache", str(cache), "" if made else "not made yet")
    yield measured("disk", "hub_cache_free", free, unit="B")
    yield measured("disk", "current_folder_free", free_bytes(folder), unit="B")
    for name in DOWNLOADS:
        config = ModelConfig.preset(name)
        int4, bf16 = config.weight_bytes("int4"), config.weight_bytes("bf16")
        value = f"{int4 / 1e6:,.0f} MB (INT4), {bf16 / 1e6:,.0f} MB (BF16)"
        yield Line("disk", f"download_{name}", value, "derived", _room(free, int4, bf16))


def _room(free: int | None, int4: int, bf16: int) -> str:
    if free is None:
        return ""
    if free < int4:
        return "no room"
    return "room for either" if free >= bf16 else "room for INT4 only"


def free_bytes(path: Path) -> int | None:
    """Return what is free where `path` is, or would be made."""
    for place in (path, *path.parents):
        try:
            return shutil.disk_usage(place).free
        except OSError:
            continue
    return None


def hub_lines(token: TokenStatus, cache: Path | None) -> Iterator[Line]:
    """Say whether there is a token (never its value), what is in the cache, and the licences."""
    yield measured("hub", "token", *_token(token))
    found = None if cache is None else ", ".join(cached_models(cache)) or "none"
    yield measured("hub", "cached_models", found, "folders of the hub cache")
    yield Line("hub", "licence_weights", WEIGHTS_LICENCE, "policy", "research, no commercial use")
    yield Line("hub", "licence_code", CODE_LICENCE, "policy")


def _token(token: TokenStatus) -> tuple[str, str]:
    """Return value and note of a token: whether it is there and used, and from where."""
    if token.source == "none":
        return "none", "the released weights are gated and need one"
    if token.source == "unreadable file":
        return "unreadable", f"check the permissions of {token.where}"
    if token.malformed:
        return "malformed", f"from {token.where}; it is refused before any request"
    unused = "" if token.sent else "; HF_HUB_DISABLE_IMPLICIT_TOKEN keeps it from being sent"
    return "present", f"from {token.where}{unused}"


def cached_models(cache: Path) -> tuple[str, ...]:
    """Return the MobileMoE repositories that have a folder in the cache, complete or not."""
    try:
        found = [path.name for path in cache.glob(f"{REPOSITORY_PREFIX}*") if path.is_dir()]
    except OSError:
        return ()
    return tuple(sorted(name.removeprefix("models--").replace("--", "/") for name in found))


def software_lines(compiler: str | None) -> Iterator[Line]:
    """List the versions that results depend on."""
    for name, version in versions(PACKAGES).items():
        yield measured("software", name, version)
    yield measured("software", "compiler", compiler, "built the native module")
    yield measured("software", "system", f"{platform.system()} {platform.release()}")
    yield measured("software", "architecture", platform.machine())
