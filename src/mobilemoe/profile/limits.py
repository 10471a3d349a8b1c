"""How much memory this process may use, which limit binds, and which models fit under it.

A model's file is mapped: its pages count as memory while they are there, but the system may drop
them and read them again. So a file larger than the memory still runs, slowly, as long as what
the engine writes (KV cache, buffers) fits. A limit on the address space is different: under it
the mapping itself fails.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mobilemoe.config import ModelConfig
from mobilemoe.engine.cgroups import group_folders
from mobilemoe.engine.footprint import model_bytes, session_bytes
from mobilemoe.engine.system_files import ROOT, read_field, read_integer, read_text, to_integer

Verdict = Literal["fits", "partly paged", "does not fit", "unknown"]

PRESET_NAMES = ("S", "M", "L", "nano")
CONTEXTS = (1024, 4096, 8192)
UNLIMITED = 2**60  # version 1 groups write a number just below 2**63 for "no limit"

MACHINE = "free memory of the machine"
GROUP = "cgroup memory limit"
ADDRESS_SPACE = "address space limit (ulimit -v)"


@dataclass(frozen=True)
class Limit:
    """One limit in bytes and the room that is left under it.

    `maps_files`: whether a file larger than the room can still be mapped and paged.
    """

    name: str
    limit: int
    room: int
    maps_files: bool


@dataclass(frozen=True)
class MemoryLimits:
    """Memory of the machine (None: unknown) and every limit that holds for this process."""

    total: int | None
    available: int | None
    limits: tuple[Limit, ...]

    @property
    def binding(self) -> Limit | None:
        """The limit that leaves the least room."""
        return min(self.limits, key=lambda limit: limit.room, default=None)


@dataclass(frozen=True)
class Fit:
    """Whether a preset runs with a context: bytes of its INT4 file, and beside it."""

    preset: str
    context: int
    file_bytes: int
    private_bytes: int
    verdict: Verdict


def memory_limits(root: Path = ROOT) -> MemoryLimits:
    """Read what the machine, the control groups and the process's own limits allow.

    Room is what is left after the memory in use now, this process included; file cache that the
    system can drop counts as free.
    """
    meminfo = root / "proc/meminfo"
    total, available = _kilobytes(meminfo, "MemTotal"), _kilobytes(meminfo, "MemAvailable")
    if total is None and root == ROOT:
        total = _physical_memory()
    limits = [*_group_limits(root), *_address_space(root)]
    if total is not None and available is not None:
        limits.insert(0, Limit(MACHINE, total, available, maps_files=True))
    return MemoryLimits(total, available, tuple(limits))


def _group_limits(root: Path) -> Iterator[Limit]:
    for folder in group_folders("memory", root):
        for limit_name, used_name, cache_name in (
            ("memory.max", "memory.current", "inactive_file"),  # version 2
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),  # 1
        ):
            limit, used = read_integer(folder / limit_name), read_integer(folder / used_name)
            if limit is None or limit >= UNLIMITED:
                continue
            cache = read_field(folder / "memory.stat", cache_name) or 0
            room = max(0, limit - max(0, (used or 0) - cache))
            yield Limit(GROUP, limit, room, maps_files=True)


def _address_space(root: Path) -> Iterator[Limit]:
    name = "Max address space"
    for line in read_text(root / "proc/self/limits").splitlines():
        limit = to_integer(line.removeprefix(name).split()[0]) if line.startswith(name) else None
        if limit is not None:
            used = _kilobytes(root / "proc/self/status", "VmSize") or 0
            yield Limit(ADDRESS_SPACE, limit, max(0, limit - used), maps_files=False)


def _kilobytes(path: Path, name: str) -> int | None:
    value = read_field(path, name)
    return None if value is None else 1024 * value


def _physical_memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def what_fits(limits: MemoryLimits, threads: int) -> tuple[Fit, ...]:
    """Judge each preset at each context that it has, run in INT4 with int8 activations."""
    fits = []
    for name in PRESET_NAMES:
        config = ModelConfig.preset(name)
        for context in CONTEXTS:
            if context <= config.max_position_embeddings:
                fits.append(_fit(name, config, context, limits, threads))
    return tuple(fits)


def _fit(name: str, config: ModelConfig, context: int, limits: MemoryLimits, threads: int) -> Fit:
    file_bytes = config.weight_bytes("int4")
    private_bytes = model_bytes(config) + session_bytes(config, context, threads)
    return Fit(name, context, file_bytes, private_bytes, verdict(file_bytes, private_bytes, limits))


def verdict(file_bytes: int, private_bytes: int, limits: MemoryLimits) -> Verdict:
    """Judge a mapped file and the private memory beside it, under every limit."""
    if not limits.limits:
        return "unknown"
    result: Verdict = "fits"
    for limit in limits.limits:
        if file_bytes + private_bytes <= limit.room:
            continue
        if private_bytes > limit.room or not limit.maps_files:
            return "does not fit"
        result = "partly paged"
    return result
