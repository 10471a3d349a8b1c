"""How many threads the engine may use by default."""

from __future__ import annotations

import os
from pathlib import Path

_ROOT = Path("/")


def default_threads(root: Path = _ROOT) -> int:
    """Return the CPUs this process may run on, capped by its cgroup CPU quota; at least 1.

    More threads than that only wait for each other. `root` stands in for the file system root
    in tests.
    """
    quota = _cgroup_quota(root)
    cpus = _allowed_cpus()
    return cpus if quota is None else max(1, min(cpus, int(quota)))


def _allowed_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def _cgroup_quota(root: Path) -> float | None:
    """Return the smallest CPU quota of this process's cgroup and its ancestors, in CPUs."""
    quotas = [_quota_v1(root / "sys/fs/cgroup/cpu")]
    folder = root / "sys/fs/cgroup"
    quotas.append(_quota_v2(folder))
    for part in _own_cgroup(root):
        folder = folder / part
        quotas.append(_quota_v2(folder))
    return min((quota for quota in quotas if quota is not None), default=None)


def _own_cgroup(root: Path) -> list[str]:
    lines = _read(root / "proc/self/cgroup").splitlines()
    paths = [line[len("0::") :] for line in lines if line.startswith("0::")]
    return [part for path in paths for part in path.split("/") if part not in ("", "..")]


def _quota_v2(folder: Path) -> float | None:
    fields = _read(folder / "cpu.max").split()
    return _ratio(*fields) if len(fields) == 2 else None


def _quota_v1(folder: Path) -> float | None:
    return _ratio(_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us"))


def _ratio(quota: str, period: str) -> float | None:
    """Both are microseconds; "max", -1 or nothing means no limit."""
    try:
        limit, length = int(quota), int(period)
    except ValueError:
        return None
    return limit / length if limit > 0 and length > 0 else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
