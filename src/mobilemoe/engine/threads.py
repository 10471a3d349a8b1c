"""How many threads the engine uses by default, and why.

The policy: one thread on each physical big core that this process may run on, no more than its
control group's CPU quota. The engine splits work into equal shares, so a little core would hold
up the big ones; and it is bound by memory, so two threads on one core mostly wait for the same
data. Threads are counted, not pinned: the system places them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from mobilemoe.engine.cgroups import cpu_quota
from mobilemoe.engine.cores import (
    CPU_FOLDER,
    CoreTypes,
    apple_performance_cores,
    core_types,
    physical_cores,
)
from mobilemoe.engine.system_files import ROOT, read_cpus

MAX_THREADS = 1024  # what the native engine accepts


@dataclass(frozen=True)
class ThreadPlan:
    """How many threads to use, and what that follows from.

    `big_cpus` and `little_cpus` are those of the whole machine; `core_source` is the file that
    told them apart (None: nothing tells, all count as big). `smt_siblings` are the groups of
    CPUs that share a core, among those in use (None: unknown). `quota` is in CPUs.
    `performance_cores` is what a Mac says of itself: how many, not which.
    """

    threads: int
    allowed_cpus: tuple[int, ...]
    total_cpus: int
    quota: float | None
    big_cpus: tuple[int, ...]
    little_cpus: tuple[int, ...]
    core_source: str | None
    smt_siblings: tuple[tuple[int, ...], ...] | None
    performance_cores: int | None
    reason: str


def default_threads(root: Path = ROOT) -> int:
    """Return the threads of `thread_plan`; at least 1."""
    return thread_plan(root).threads


def thread_plan(root: Path = ROOT, affinity: Collection[int] | None = None) -> ThreadPlan:
    """Plan the threads of this process, or of one that may run on the CPUs `affinity`."""
    allowed = set(_own_affinity() if affinity is None else affinity) or {0}
    total = read_cpus(root / CPU_FOLDER / "online") | allowed
    types = core_types(total, root)
    used = allowed & set(types.big_cpus) or allowed
    cores = physical_cores(used, root)
    apple = apple_performance_cores() if sys.platform == "darwin" and root == ROOT else None
    quota = cpu_quota(root)
    busy = min(len(used if cores is None else cores), apple or MAX_THREADS)
    threads = busy if quota is None else max(1, min(busy, int(quota)))
    clauses = [f"{len(allowed)} of {len(total)} CPUs may be used"]
    clauses += _core_clauses(allowed, used, types)
    if cores is not None and len(cores) < len(used):
        clauses.append(f"{len(used)} CPUs share {len(cores)} physical cores, one thread each")
    if apple is not None:
        clauses.append(f"this Mac has {apple} performance cores")
    if quota is not None and quota < busy:
        clauses.append(f"the cgroup quota of {quota:g} CPUs is the limit")
    return ThreadPlan(
        threads=threads,
        allowed_cpus=tuple(sorted(allowed)),
        total_cpus=len(total),
        quota=quota,
        big_cpus=types.big_cpus,
        little_cpus=types.little_cpus,
        core_source=types.source,
        smt_siblings=cores and tuple(core for core in cores if len(core) > 1),
        performance_cores=apple,
        reason=", ".join(clauses),
    )


def oversubscription(threads: int, plan: ThreadPlan) -> str | None:
    """Say in a sentence that `threads` is more than this process may use; None if it is not."""
    cpus = len(plan.allowed_cpus)
    if threads > cpus:
        limit = f"this process may run on {cpus} CPU{'s' * (cpus != 1)}"
    elif plan.quota is not None and threads > max(1.0, plan.quota):
        limit = f"its cgroup quota is {plan.quota:g} CPUs"
    else:
        return None
    return (
        f"threads is {threads}, but {limit}: threads will wait for each other; "
        f"{plan.threads} would be used by default"
    )


def _own_affinity() -> Collection[int]:
    # The system call knows of offline CPUs and of the calling thread; files in /proc do not.
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return range(os.cpu_count() or 1)


def _core_clauses(allowed: set[int], used: set[int], types: CoreTypes) -> list[str]:
    if not types.little_cpus:
        return []
    left_out = len(allowed - used)
    if left_out:
        return [f"{left_out} of them little cores, which would hold up the big ones"]
    return ["all of them little cores" if used & set(types.little_cpus) else "all big cores"]
