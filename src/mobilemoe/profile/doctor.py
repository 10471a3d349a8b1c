"""A check of this machine: can the engine be trusted here, with how many threads, on what memory.

Nothing is guessed: each line says how it is known. No network, no torch, and no native module
is needed to be told that it is missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mobilemoe.checkpoint.hub import cache_root, check_token, token_status
from mobilemoe.engine.memory_limits import MemoryLimits, memory_limits
from mobilemoe.engine.native import instruction_set, native_module
from mobilemoe.engine.selftest import SHARED, Check, runnable_kernels, self_test
from mobilemoe.engine.selftest_cases import Functions
from mobilemoe.engine.system_files import ROOT
from mobilemoe.engine.threads import thread_plan
from mobilemoe.errors import MobileMoEError
from mobilemoe.profile.findings import Line, Problem
from mobilemoe.profile.limits import Fit, what_fits
from mobilemoe.profile.machine import this_machine
from mobilemoe.profile.machine_lines import (
    fit_lines,
    memory_lines,
    processor_lines,
    self_test_lines,
    thread_lines,
)
from mobilemoe.profile.software_lines import disk_lines, hub_lines, software_lines


@dataclass(frozen=True)
class Engine:
    """The native module as found: its kernels, its self-test, its compiler; or why it is not."""

    kernel: str
    kernels: tuple[str, ...]
    checks: tuple[Check, ...]
    compiler: str | None
    missing: MobileMoEError | None


@dataclass(frozen=True)
class Report:
    """Everything that was found. `ok`: no problem is an error."""

    lines: tuple[Line, ...]
    checks: tuple[Check, ...]
    fits: tuple[Fit, ...]
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether the engine can be used and trusted."""
        return all(problem.severity != "error" for problem in self.problems)


def examine(
    root: Path = ROOT,
    folder: Path = Path(),
    functions: Functions | None = None,
) -> Report:
    """Examine this machine.

    `root` stands in for the file system root where the system describes itself, `folder` for
    the current one, and `functions` for the engine's own in the self-test.
    """
    engine = find_engine(functions)
    plan, limits = thread_plan(root), memory_limits(root)
    fits = what_fits(limits, plan.threads)
    cache = find_cache()
    lines = (
        *processor_lines(root, this_machine().cpu, engine.kernel, engine.kernels),
        *self_test_lines(engine.checks),
        *thread_lines(root, plan),
        *memory_lines(root, limits),
        *fit_lines(fits),
        *disk_lines(cache, folder),
        *hub_lines(token_status(), cache),
        *software_lines(engine.compiler),
    )
    problems = (*engine_problems(engine), *memory_problems(fits, limits), *hub_problems())
    return Report(lines, engine.checks, fits, problems)


def find_cache() -> Path | None:
    """Return the folder of the hub's cache; None if the environment names no usable one."""
    try:
        return cache_root()
    except MobileMoEError:
        return None  # a problem of its own


def find_engine(functions: Functions | None = None) -> Engine:
    """Load the native module if there is one, and test it."""
    try:
        native = native_module()
    except MobileMoEError as error:
        return Engine("", (), (), None, error)
    kernels = runnable_kernels()
    checks = self_test(kernels, functions)
    compiler = getattr(native, "compiler", None)
    return Engine(instruction_set(), kernels, checks, compiler, None)


def engine_problems(engine: Engine) -> Iterator[Problem]:
    """Name a missing engine, kernels that compute wrongly, and a slow one."""
    if engine.missing is not None:
        yield Problem("error", engine.missing.message, engine.missing.hint)
        return
    failed = [check for check in engine.checks if not check.passed]
    for check in failed:
        what = f"kernel {check.kernel} computes wrongly: {check.function} {check.where}"
        yield Problem("error", what, _failure_hint(check, failed))
    if engine.kernel == "portable":
        yield Problem(
            "warning",
            "the engine runs its portable kernels, the slow ones",
            "fast ones exist for x86-64 with AVX2, FMA and F16C; is this build for this CPU?",
        )


def hub_problems() -> Iterator[Problem]:
    """Say what every verb would say before it asks the hub: a bad cache, a bad token."""
    for required in (cache_root, check_token):
        try:
            required()
        except MobileMoEError as error:
            yield Problem("warning", error.message, error.hint)


def _failure_hint(check: Check, failed: Sequence[Check]) -> str:
    trusted = {"portable", SHARED}.isdisjoint(other.kernel for other in failed)
    reinstall = "reinstall mobilemoe; if it stays, report it with `mobilemoe doctor --json`"
    if not trusted:
        return reinstall
    return f"until it is repaired load models with kernel='portable'; {reinstall}"


def memory_problems(fits: Sequence[Fit], limits: MemoryLimits) -> Iterator[Problem]:
    """Say when even S with the shortest context does not fit."""
    smallest = next(fit for fit in fits if fit.preset == "S")
    binding = limits.binding
    if binding is None or smallest.verdict not in ("partly paged", "does not fit"):
        return
    need = smallest.file_bytes + smallest.private_bytes
    slow = "; it would run, reading weights from disk again and again"
    yield Problem(
        "warning",
        f"S at {smallest.context} tokens needs {need / 1e6:,.0f} MB and the {binding.name} "
        f"leaves {binding.room / 1e6:,.0f} MB{slow * (smallest.verdict == 'partly paged')}",
        "end other programs or raise the limit; `mobilemoe plan` finds a shape for less memory",
    )
