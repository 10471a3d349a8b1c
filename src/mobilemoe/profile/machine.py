"""What this machine is, for every result that is written down."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


@dataclass(frozen=True)
class Machine:
    """Processor name, usable cores, memory in GB (10^9 bytes) and operating system."""

    cpu: str
    cores: int
    memory_gb: float
    os: str


def this_machine() -> Machine:
    """Return what can be read without privileges; "unknown" where nothing can."""
    return Machine(_cpu_name(), _cores(), _memory_gb(), f"{platform.system()} {platform.release()}")


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Return the installed version of each package, and of Python."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine() or "unknown"


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_gb() -> float:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (ValueError, OSError):
        return float("nan")
