"""How much memory this process may use, and which limit binds.

A model's file is mapped: its pages count as memory while they are there, but the system may drop
them and read them again. A limit on the address space is different: under it the mapping itself
fails.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mobilemoe.engine.cgroups import group_folders
from mobilemoe.engine.system_files import ROOT, read_field, read_integer, read_text, to_integer

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
