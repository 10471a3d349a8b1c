"""GGUF's Q4_0 blocks: what our INT4 groups are, in another order of bytes.

A block holds 32 values of one row: a float16 scale, then 16 bytes. Byte j has value j in its low
nibble and value j + 16 in its high one, as unsigned numbers that stand for q - 8. Our groups
along the last axis have the same scale and the same 16 levels, so they convert bit for bit.

R rows, N values of a row (a multiple of 32).
"""

from __future__ import annotations

from math import sqrt

import numpy as np
import numpy.typing as npt

from mobilemoe.quant.int4 import dequantize, quantize
from mobilemoe.weights import GROUP_SIZE

HALF = GROUP_SIZE // 2
BLOCK_BYTES = 2 + HALF

UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]


def q4_0_rows(integers: npt.NDArray[np.int8], scales: npt.NDArray[np.float16]) -> UInt8:
    """Return integers [R, N] in [-8, 7] and scales [R, N/32] as bytes [R, 18 N/32]."""
    rows, width = integers.shape
    levels = (integers + 8).view(np.uint8).reshape(rows, -1, GROUP_SIZE)
    blocks = np.empty((rows, width // GROUP_SIZE, BLOCK_BYTES), np.uint8)
    little_endian = np.ascontiguousarray(scales, "<f2")
    blocks[..., :2] = little_endian.view(np.uint8).reshape(rows, -1, 2)
    blocks[..., 2:] = levels[..., :HALF] | (levels[..., HALF:] << 4)
    return blocks.reshape(rows, -1)


class Requantizer:
    """Rounds float32 rows to Q4_0 and adds up what that loses."""

    def __init__(self) -> None:
        self._error = 0.0
        self._power = 0.0

    def rows(self, values: Float32) -> UInt8:
        """Return `values` [R, N] as Q4_0 bytes [R, 18 N/32]."""
        integers, scales = quantize(values)
        wide = values.astype(np.float64)
        self._error += float(((dequantize(integers, scales) - wide) ** 2).sum())
        self._power += float((wide**2).sum())
        return q4_0_rows(integers, scales)

    @property
    def relative_rms_error(self) -> float:
        """Root mean square of the error over that of the values, of all rows so far."""
        return sqrt(self._error / self._power) if self._power else 0.0
