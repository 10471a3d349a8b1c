"""Self-test: every kernel table that this CPU runs, against plain numpy.

A few small calls with fixed seeds, in milliseconds, of the same functions that the engine calls.
A wrong build, a miscompiled kernel or an instruction that a virtual machine emulates wrongly
shows here and not as odd text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mobilemoe.engine.loading import KERNELS
from mobilemoe.engine.native import instruction_set, native_module
from mobilemoe.engine.selftest_cases import Case, Functions, kernel_cases, route_case
from mobilemoe.errors import MobileMoEError

SHARED = "shared"  # by every kernel table


@dataclass(frozen=True)
class Check:
    """One function of one kernel table compared with numpy.

    `worst` is the largest error as a share of what rounding allows at that place: up to 1
    passes, infinity is an error where none is allowed or a value that is not finite. `where` is
    that place with both values.
    """

    kernel: str
    function: str
    worst: float
    where: str

    @property
    def passed(self) -> bool:
        """Whether every error is within its tolerance."""
        return self.worst <= 1


def runnable_kernels() -> tuple[str, ...]:
    """Return the kernel tables that this build has and this CPU runs.

    Raises:
        MobileMoEError: if there is no native module.
    """
    native_module()
    return tuple(name for name in KERNELS if name != "auto" and _runs(name))


def _runs(kernel: str) -> bool:
    try:
        return instruction_set(kernel) == kernel
    except MobileMoEError:
        return False


def self_test(
    kernels: Sequence[str] | None = None, functions: Functions | None = None
) -> tuple[Check, ...]:
    """Compare `functions` (by default the engine's own) with numpy, for each of `kernels`.

    Raises:
        MobileMoEError: if there is no native module.
    """
    kernels = runnable_kernels() if kernels is None else kernels
    functions = native_module().testing if functions is None else functions
    cases = tuple(kernel_cases())
    checks = [_check(route_case(), functions, SHARED)]
    checks += [_check(case, functions, kernel) for kernel in kernels for case in cases]
    return tuple(_worst_of_each(checks))


def _worst_of_each(checks: Sequence[Check]) -> Iterator[Check]:
    worst: dict[tuple[str, str], Check] = {}
    for check in checks:
        key = (check.kernel, check.function)
        if key not in worst or check.worst > worst[key].worst:
            worst[key] = check
    yield from worst.values()


def _check(case: Case, functions: Functions, kernel: str) -> Check:
    actual, expected = case.call(functions, kernel), case.expected
    if actual.shape != expected.shape:
        where = f"shape {expected.shape} expected, {actual.shape} found"
        return Check(kernel, case.function, np.inf, where)
    error = np.abs(actual.astype(np.float64) - expected)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(error == 0, 0.0, error / case.bound)
    share[np.isnan(share)] = np.inf
    at = np.unravel_index(int(np.argmax(share)), share.shape)
    place = ", ".join(str(int(index)) for index in at)
    where = f"at [{place}]: {expected[at]:.9g} expected, {float(actual[at]):.9g} found"
    return Check(kernel, case.function, float(share[at]), where)
