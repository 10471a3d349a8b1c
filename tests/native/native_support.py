"""Random INT4 and BF16 matrices and the kernels that this CPU runs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mobilemoe.engine.selftest import runnable_kernels
from mobilemoe.quant import dequantize, pack, round_bf16

KERNELS = runnable_kernels()
EPS = 2.0**-24  # half a unit in the last place of a float32 near 1


@dataclass(frozen=True)
class Int4:
    """One matrix: as stored, and as float64 values."""

    qweight: npt.NDArray[np.uint8]
    scale_bits: npt.NDArray[np.uint16]
    integers: npt.NDArray[np.float64]
    values: npt.NDArray[np.float64]


def random_int4(rows: int, columns: int, seed: int = 0, powers_of_two: bool = False) -> Int4:
    rng = np.random.default_rng(seed)
    integers = rng.integers(-8, 8, (rows, columns)).astype(np.int8)
    shape = (rows, columns // 32)
    exponents = 2.0 ** rng.integers(-6, -3, shape)
    scales = (exponents if powers_of_two else rng.uniform(0.002, 0.05, shape)).astype(np.float16)
    values = dequantize(integers, scales).astype(np.float64)
    return Int4(pack(integers), scales.view(np.uint16), integers.astype(np.float64), values)


def bf16_bytes(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """[R, C] rounded to BF16, as bytes [R, 2 C] that begin at an odd address."""
    bits = round_bf16(values).astype("<u2").view(np.uint8)
    room = np.empty(bits.size + 1, np.uint8)
    start = 1 - room.ctypes.data % 2
    odd = room[start : start + bits.size].reshape(bits.shape)
    odd[:] = bits
    return odd


def bf16_values(stored: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """What `bf16_bytes` stored, as float64."""
    bits = stored.copy().view("<u2").astype(np.uint32) << 16
    return bits.view(np.float32).astype(np.float64)


def worst(actual: npt.NDArray[np.float32], expected: npt.NDArray[np.float64]) -> str:
    """Where two arrays differ most, for a failing assertion."""
    at = np.unravel_index(np.argmax(np.abs(actual - expected)), expected.shape)
    return f"worst at {at}: expected {expected[at]}, actual {actual[at]}"
