"""A made-up machine: the files in which Linux describes it, below a folder of the test's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

CPU = "sys/devices/system/cpu"


def write_file(root: Path, path: str, text: str) -> None:
    """Write one file of the machine, with the newline that Linux ends it with."""
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text + "\n")


def write_cpus(
    root: Path,
    count: int,
    capacity: Mapping[int, int] | None = None,
    max_khz: Mapping[int, int] | None = None,
    siblings: Mapping[int, str] | None = None,
) -> None:
    """Describe `count` CPUs: capacities, clock rates and the CPUs that share a core."""
    write_file(root, f"{CPU}/online", f"0-{count - 1}")
    for name, values in (
        ("cpu_capacity", capacity),
        ("cpufreq/cpuinfo_max_freq", max_khz),
        ("topology/thread_siblings_list", siblings),
    ):
        for cpu, value in (values or {}).items():
            write_file(root, f"{CPU}/cpu{cpu}/{name}", str(value))
