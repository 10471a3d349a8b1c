"""Lines about the machine: processor, self-test, threads, memory and what fits into it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from mobilemoe.engine.memory_limits import ADDRESS_SPACE, GROUP, Limit, MemoryLimits
from mobilemoe.engine.selftest import Check
from mobilemoe.engine.system_files import cpu_list, read_text
from mobilemoe.engine.threads import ThreadPlan
from mobilemoe.profile.findings import Line, measured
from mobilemoe.profile.limits import Fit

# What inner loops of INT4 and int8 are written for, as Linux names it on x86 and on ARM.
INSTRUCTION_SETS = (
    *("sse4_2", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512vl"),
    *("avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16"),
    *("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme"),
)


def processor_lines(root: Path, model: str, kernel: str, kernels: Sequence[str]) -> Iterator[Line]:
    """Describe the CPU called `model`, and the kernel that the engine chooses ("" for none)."""
    flags = cpu_flags(root)
    virtual = "a virtual machine" if "hypervisor" in flags else ""
    yield measured("processor", "model", model, virtual)
    found = " ".join(name for name in INSTRUCTION_SETS if name in flags)
    note = "those that matter here, from /proc/cpuinfo" if flags else "no /proc/cpuinfo"
    yield measured("processor", "instruction_sets", found or ("none" if flags else None), note)
    built = f"the engine's choice; runs here: {', '.join(kernels)}" if kernel else "no engine"
    yield measured("processor", "kernel", kernel, built)


def cpu_flags(root: Path) -> frozenset[str]:
    """Return the feature flags of the first CPU; empty where Linux does not tell."""
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", read_text(root / "proc/cpuinfo"), re.M)
    return frozenset(found.group(1).split()) if found else frozenset()


def self_test_lines(checks: Sequence[Check]) -> Iterator[Line]:
    """Summarise the checks of each kernel table."""
    for kernel in dict.fromkeys(check.kernel for check in checks):
        own = [check for check in checks if check.kernel == kernel]
        worst = max(own, key=lambda check: check.worst)
        if worst.passed:
            functions = ", ".join(dict.fromkeys(check.function.split()[0] for check in own))
            note = f"{functions}; worst error: {worst.worst:.0%} of its tolerance"
            yield measured("self_test", kernel, "passed", note)
        else:
            yield measured("self_test", kernel, "failed", f"{worst.function} {worst.where}")


def thread_lines(root: Path, plan: ThreadPlan) -> Iterator[Line]:
    """Say which CPUs may be used, and how many threads follow from that."""
    online = f"{len(plan.allowed_cpus)} of {plan.total_cpus} online"
    yield measured("threads", "allowed_cpus", cpu_list(plan.allowed_cpus), online)
    if plan.quota is None:
        known = (root / "proc/self/cgroup").exists()
        yield measured("threads", "cpu_quota", "none" if known else None)
    else:
        yield measured("threads", "cpu_quota", plan.quota, unit="CPUs")
    source = f"from {plan.core_source}" if plan.core_source else ""
    yield measured("threads", "core_types", _core_types(plan), source)
    yield measured("threads", "shared_cores", _shared_cores(plan), "CPUs on one core")
    yield Line("threads", "threads", plan.threads, "policy", plan.reason)


def _core_types(plan: ThreadPlan) -> str | None:
    if plan.performance_cores is not None:
        return f"{plan.performance_cores} performance cores"
    if plan.core_source is None:
        return None
    if not plan.little_cpus:
        return "all alike"
    return f"big {cpu_list(plan.big_cpus)}, little {cpu_list(plan.little_cpus)}"


def _shared_cores(plan: ThreadPlan) -> str | None:
    if plan.smt_siblings is None:
        return None
    return " ".join(cpu_list(cores) for cores in plan.smt_siblings) or "none"


def memory_lines(root: Path, limits: MemoryLimits) -> Iterator[Line]:
    """List the memory, its limits, and the room that is left under the tightest."""
    yield measured("memory", "total", limits.total, unit="B")
    yield measured("memory", "available", limits.available, "file cache counts as free", unit="B")
    yield _limit_line("cgroup_limit", GROUP, limits, (root / "proc/self/cgroup").exists())
    known = (root / "proc/self/limits").exists()
    yield _limit_line("address_space_limit", ADDRESS_SPACE, limits, known)
    binding = limits.binding
    if binding is None:
        yield Line("memory", "room", None, "unknown", "no limit can be read", "B")
    else:
        yield Line("memory", "room", binding.room, "derived", f"tightest: {binding.name}", "B")
    yield measured("memory", "page_size", _page_size(), unit="B")
    huge = read_text(root / "sys/kernel/mm/transparent_hugepage/enabled")
    chosen = re.search(r"\[(\w+)\]", huge)
    yield measured("memory", "huge_pages", chosen and chosen.group(1), "transparent huge pages")


def _limit_line(name: str, kind: str, limits: MemoryLimits, known: bool) -> Line:
    tightest: Limit | None = min(
        (limit for limit in limits.limits if limit.name == kind),
        key=lambda limit: limit.room,
        default=None,
    )
    if tightest is None:
        return measured("memory", name, "none" if known else None)
    return measured("memory", name, tightest.limit, unit="B")


def _page_size() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None


def fit_lines(fits: Sequence[Fit]) -> Iterator[Line]:
    """Say for each preset at which contexts it fits."""
    for preset in dict.fromkeys(fit.preset for fit in fits):
        own = [fit for fit in fits if fit.preset == preset]
        low, high = (f"{edge(fit.private_bytes for fit in own) / 1e6:,.0f}" for edge in (min, max))
        private = low if low == high else f"{low} to {high}"
        note = f"{own[0].file_bytes / 1e6:,.0f} MB mapped and {private} MB of its own"
        if any(fit.verdict == "unknown" for fit in own):
            yield Line("fits", preset, None, "unknown", note)
        else:
            yield Line("fits", preset, _verdicts(own), "derived", note)


def _verdicts(fits: Sequence[Fit]) -> str:
    """Return `fits: 1024, 4096; does not fit: 8192`, contexts in tokens."""
    contexts: dict[str, list[str]] = {}
    for fit in fits:
        contexts.setdefault(fit.verdict, []).append(str(fit.context))
    return "; ".join(f"{verdict}: {', '.join(own)}" for verdict, own in contexts.items())
