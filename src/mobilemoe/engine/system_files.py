"""Reading the small text files in which Linux describes the machine.

A file that is missing, unreadable or odd says nothing; it never raises. `root` stands in for
the file system root in tests, here and in every function that takes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path("/")


def read_text(path: Path) -> str:
    """Return the stripped text of `path`; empty if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def read_integer(path: Path) -> int | None:
    """Return the integer that `path` holds, or None."""
    return to_integer(read_text(path))


def to_integer(text: str) -> int | None:
    """Return `text` as an integer, or None ("max", "unlimited" and nonsense alike)."""
    try:
        return int(text)
    except ValueError:
        return None


def read_field(path: Path, name: str) -> int | None:
    """Return the first integer after `name` (and its colon, if any) at the start of a line."""
    for line in read_text(path).splitlines():
        fields = line.split()
        if len(fields) > 1 and fields[0].removesuffix(":") == name:
            return to_integer(fields[1])
    return None


def read_cpus(path: Path) -> frozenset[int]:
    """Return the CPUs of a list such as `0-3,8`; empty if it cannot be read."""
    try:
        return frozenset(cpu for part in read_text(path).split(",") for cpu in _range(part))
    except ValueError:
        return frozenset()


def _range(part: str) -> Iterator[int]:
    first, _, last = part.strip().partition("-")
    yield from range(int(first), int(last or first) + 1)


def cpu_list(cpus: Iterable[int]) -> str:
    """Return `cpus` as Linux writes them: `0-3,8`."""
    ranges: list[list[int]] = []
    for cpu in sorted(cpus):
        if ranges and cpu == ranges[-1][1] + 1:
            ranges[-1][1] = cpu
        else:
            ranges.append([cpu, cpu])
    return ",".join(f"{a}-{b}" if b > a else str(a) for a, b in ranges)
