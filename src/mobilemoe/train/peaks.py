"""The fastest that a device can multiply: stated by its maker, or measured on a CPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import cache

import torch
from torch import Tensor

from mobilemoe.recipe.schema import Precision

# Part of the device's name: FLOP/s of dense bfloat16 products with float32 sums, and of float32
# without TF32. The longest name that fits counts. From the data sheets of NVIDIA (H100, H200,
# A100, L40S, L4, A10) and the Hopper architecture paper; sparse figures are halved.
GPU_PEAKS: Mapping[str, tuple[float, float]] = {
    "H200": (989e12, 67e12),
    "H200 NVL": (835e12, 60e12),
    "H100": (989e12, 67e12),
    "H100 PCIe": (756e12, 51e12),
    "H100 NVL": (835e12, 60e12),
    "A100": (312e12, 19.5e12),
    "L40S": (362e12, 91.6e12),
    "L4": (121e12, 30.3e12),
    "A10": (125e12, 31.2e12),
}
TF32_OF_BF16 = 0.5  # of the same tensor cores
MEASURE_SECONDS = 0.2
CPU_SIZE = 768  # a product large enough to reach the peak, about 1 GFLOP


def peak_flops(device: torch.device, precision: Precision) -> float | None:
    """Return the peak of `device` in FLOP/s for products in `precision`; None if unknown.

    A CPU is measured once per process, in about 0.3 s, with the threads torch has then.
    """
    if device.type == "cpu":
        return measured_peak(precision, torch.get_num_threads())
    if device.type != "cuda":
        return None
    tf32 = torch.backends.cuda.matmul.allow_tf32
    return stated_peak(torch.cuda.get_device_name(device), precision, tf32)


def stated_peak(name: str, precision: Precision, tf32: bool = False) -> float | None:
    """Return what the maker states for the GPU called `name`, in FLOP/s; None if not listed."""
    words = name.replace("-", " ").split()
    fitting = [known for known in GPU_PEAKS if set(known.split()) <= set(words)]
    if not fitting:
        return None
    bf16, fp32 = GPU_PEAKS[max(fitting, key=len)]
    if precision == "bf16":
        return bf16
    return TF32_OF_BF16 * bf16 if tf32 else fp32


@cache
def measured_peak(precision: Precision, threads: int) -> float:
    """Return the fastest of many products on this CPU, in FLOP/s, with torch's `threads`."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    size = CPU_SIZE
    left, right = (torch.ones(size, size, dtype=dtype) for _ in range(2))
    out = torch.empty(size, size, dtype=dtype)
    _seconds(lambda: torch.mm(left[:64], right))  # warm up: threads and code paths
    best = min(_repeated(lambda: torch.mm(left, right, out=out)))
    return 2 * size**3 / best


def _repeated(product: Callable[[], Tensor]) -> list[float]:
    """Return the time of each of at least two products, as many as fit `MEASURE_SECONDS`."""
    end = time.perf_counter() + MEASURE_SECONDS
    times = [_seconds(product), _seconds(product)]
    while time.perf_counter() < end:
        times.append(_seconds(product))
    return times


def _seconds(product: Callable[[], Tensor]) -> float:
    started = time.perf_counter()
    product()
    return time.perf_counter() - started
