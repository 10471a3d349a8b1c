"""What this machine can do at most: read bandwidth and multiply-add peaks, measured in a second."""

from __future__ import annotations

from dataclasses import dataclass

from mobilemoe.engine.native import native_errors, native_module

READ_BYTES = 512 * 2**20  # several times the last cache of any machine we know
READ_PASSES = 8
PEAK_PASSES = 5
PEAK_MILLISECONDS = 30


@dataclass(frozen=True)
class Ceilings:
    """10^9 bytes and 10^9 multiply-accumulates per second, `threads` threads together.

    `int8_instructions` and `fp32_instructions` name what reached the peaks.
    """

    threads: int
    read_gb_s: float
    int8_gmac_s: float
    int8_instructions: str
    fp32_gmac_s: float
    fp32_instructions: str


def measure_ceilings(threads: int, read_bytes: int = READ_BYTES) -> Ceilings:
    """Measure with `threads` threads; takes `read_bytes` of memory while it lasts.

    Raises:
        MobileMoEError: for fewer than 1 thread, fewer than 1 MiB, or too little memory.
    """
    with native_errors():
        ceilings = native_module().ceilings
        read_gb_s = ceilings.read_gb_s(read_bytes, threads, READ_PASSES)
        int8 = ceilings.int8_gmac_s(threads, PEAK_PASSES, PEAK_MILLISECONDS)
        fp32 = ceilings.fp32_gmac_s(threads, PEAK_PASSES, PEAK_MILLISECONDS)
    return Ceilings(threads, read_gb_s, *int8, *fp32)
