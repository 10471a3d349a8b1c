"""Control groups: where the limits of this process are written, version 1 and 2."""

from __future__ import annotations

from pathlib import Path

from mobilemoe.engine.system_files import ROOT, read_integer, read_text, to_integer


def group_folders(controller: str, root: Path = ROOT) -> tuple[Path, ...]:
    """Return the folders of this process's groups that `controller` may limit.

    From the top of each hierarchy down to its own group: limits of ancestors hold too. In a
    container the top is often the container's own group, and the path below it, as the host
    sees it, leads nowhere. Folders need not exist.
    """
    mount = root / "sys/fs/cgroup"
    hierarchies = (
        (mount / controller, _own_path(controller, root)),  # version 1
        (mount, _own_path("", root)),  # version 2
        (mount / "unified", _own_path("", root)),  # version 2 beside version 1
    )
    return tuple(
        top.joinpath(*path[:depth]) for top, path in hierarchies for depth in range(len(path) + 1)
    )


def _own_path(controller: str, root: Path) -> list[str]:
    """Return this process's group below the top; version 2 has no controller in its line."""
    for line in read_text(root / "proc/self/cgroup").splitlines():
        fields = line.split(":", 2)
        if len(fields) == 3 and controller in fields[1].split(","):
            return [part for part in fields[2].split("/") if part not in ("", "..")]
    return []


def cpu_quota(root: Path = ROOT) -> float | None:
    """Return the smallest CPU quota of this process's groups in CPUs, None without one."""
    quotas = [_quota(folder) for folder in group_folders("cpu", root)]
    return min((quota for quota in quotas if quota is not None), default=None)


def _quota(folder: Path) -> float | None:
    fields = read_text(folder / "cpu.max").split()
    if len(fields) == 2:
        return _ratio(to_integer(fields[0]), to_integer(fields[1]))
    quota = read_integer(folder / "cpu.cfs_quota_us")
    return _ratio(quota, read_integer(folder / "cpu.cfs_period_us"))


def _ratio(quota: int | None, period: int | None) -> float | None:
    """Both are microseconds; "max", -1 or nothing means no limit."""
    if quota is None or period is None or quota <= 0 or period <= 0:
        return None
    return quota / period
