"""The ceilings are finite, physically possible, and refuse what makes no sense."""

from __future__ import annotations

import math
import platform
from pathlib import Path

import pytest

from mobilemoe.engine.native import native_errors, native_module
from mobilemoe.errors import MobileMoEError
from mobilemoe.profile.ceilings import Ceilings, measure_ceilings

SMALL = 4 * 2**20
# Multiply-adds per instruction times two per cycle at 8 GHz: no CPU does more. A loop whose
# product the compiler took out would.
MACS = {
    "avx512-vnni": 64,
    "avx-vnni": 32,
    "avx2": 32,
    "neon-dotprod": 16,
    "avx512": 16,
    "fma": 8,
    "neon": 4,
    "portable": 64,
}
INSTRUCTIONS_PER_SECOND = 2 * 8e9


@pytest.fixture(scope="module", params=[1, 2])
def ceilings(request) -> Ceilings:
    return measure_ceilings(request.param, SMALL)


def test_peaks_are_possible(ceilings):
    assert 0.01 < ceilings.read_gb_s < 10_000
    for peak, instructions in (
        (ceilings.int8_gmac_s, ceilings.int8_instructions),
        (ceilings.fp32_gmac_s, ceilings.fp32_instructions),
    ):
        # AArch64 CPUs and the widest x86 ones have up to four such units.
        units = 4 if platform.machine() in ("aarch64", "arm64") else 2
        most = MACS[instructions] * INSTRUCTIONS_PER_SECOND / 2 * units * ceilings.threads
        assert 0.001 < peak < most / 1e9
        assert math.isfinite(peak)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="reads the flags of x86")
def test_the_best_instructions_of_this_cpu_are_used(ceilings):
    flags = Path("/proc/cpuinfo").read_text().split("flags", 1)[1].splitlines()[0].split()
    if "avx512_vnni" in flags:
        assert ceilings.int8_instructions == "avx512-vnni"
    elif "avx2" in flags:
        assert ceilings.int8_instructions in ("avx-vnni", "avx2")
    assert (ceilings.fp32_instructions == "avx512") == ("avx512f" in flags)


def test_a_buffer_that_is_no_multiple_of_anything_is_read():
    with native_errors():
        assert native_module().ceilings.read_gb_s(2**20 + 777, 3, 1) > 0


@pytest.mark.parametrize(
    ("threads", "read_bytes", "message"),
    [
        (0, SMALL, "threads is 0; allowed: 1 to 1024"),
        (1025, SMALL, "threads is 1025"),
        (1, 1000, "bytes is 1000; allowed: at least 1048576"),
    ],
)
def test_nonsense_is_refused(threads, read_bytes, message):
    with pytest.raises(MobileMoEError, match=message):
        measure_ceilings(threads, read_bytes)


def test_too_large_a_buffer_is_an_error():
    with pytest.raises(MobileMoEError, match="not enough memory"):
        measure_ceilings(1, 2**62)


@pytest.mark.parametrize("name", ["int8_gmac_s", "fp32_gmac_s"])
def test_peaks_refuse_nonsense(name):
    measure = getattr(native_module().ceilings, name)
    for threads, passes in ((0, 1), (2000, 1), (1, 0)):
        with pytest.raises(ValueError, match="allowed"):
            measure(threads, passes, 1)
