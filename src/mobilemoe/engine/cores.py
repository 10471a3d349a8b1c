"""What kinds of cores a machine has, and which CPUs share one."""

from __future__ import annotations

import subprocess
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from mobilemoe.engine.system_files import ROOT, read_cpus, read_integer

# A core below this share of the strongest one is little. The middle cores of phones with three
# kinds stay above it, little and efficiency cores below; favoured cores of one kind differ less.
BIG_SHARE = 0.7

CPU_FOLDER = "sys/devices/system/cpu"
INTEL_BIG = "sys/devices/cpu_core/cpus"
STRENGTHS = ("cpu_capacity", "cpufreq/cpuinfo_max_freq")


@dataclass(frozen=True)
class CoreTypes:
    """Big and little CPUs. `source` is the file that told; None if no file does.

    Without a source, or when all cores are alike, every CPU is big.
    """

    big_cpus: tuple[int, ...]
    little_cpus: tuple[int, ...]
    source: str | None


def core_types(cpus: Collection[int], root: Path = ROOT) -> CoreTypes:
    """Sort `cpus` into big and little.

    Intel's hybrids list their big cores. Else the scheduler's capacities decide, and where
    these are missing or equal, the highest clock rates.
    """
    listed = read_cpus(root / INTEL_BIG) & set(cpus)
    if listed:
        return _sorted_types(listed, cpus, INTEL_BIG)
    equal = None
    for name in STRENGTHS:
        strength = {cpu: read_integer(root / CPU_FOLDER / f"cpu{cpu}" / name) for cpu in cpus}
        known = {cpu: value for cpu, value in strength.items() if value is not None}
        if not known or len(known) < len(strength):
            continue
        big = {cpu for cpu, value in known.items() if value >= BIG_SHARE * max(known.values())}
        if len(big) < len(known):
            return _sorted_types(big, cpus, name)
        equal = equal or name
    return _sorted_types(cpus, cpus, equal)


def _sorted_types(big: Collection[int], cpus: Collection[int], source: str | None) -> CoreTypes:
    little = set(cpus) - set(big)
    return CoreTypes(tuple(sorted(big)), tuple(sorted(little)), source)


def physical_cores(cpus: Collection[int], root: Path = ROOT) -> tuple[tuple[int, ...], ...] | None:
    """Group `cpus` by the physical core that they share; None if no file tells of any."""
    groups = set()
    told = False
    for cpu in cpus:
        siblings = read_cpus(root / CPU_FOLDER / f"cpu{cpu}" / "topology/thread_siblings_list")
        told = told or bool(siblings)
        groups.add(tuple(sorted({cpu, *(siblings & set(cpus))})))
    return tuple(sorted(groups)) if told else None


def apple_performance_cores(program: str = "/usr/sbin/sysctl") -> int | None:
    """Return how many fast cores a Mac has (about 5 ms); None where it does not say."""
    command = [program, "-n", "hw.perflevel0.physicalcpu"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=1, check=True)
        return max(1, int(done.stdout))
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
