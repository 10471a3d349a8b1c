"""The INT4 format in plain numpy: the oracle for torch and for every native kernel.

Symmetric, groups of 32 along the last axis, scale 2 max|W| / 15 stored as float16, round to
nearest, clamp to [-8, 7] (arXiv 2605.27358). Two's-complement nibbles, low nibble first.
Linears are [out, in] and group along the input; experts are [E, in, out] and group along the
output: in both the last axis.

N elements along the last axis, a multiple of 32.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mobilemoe.errors import MobileMoEError
from mobilemoe.weights import GROUP_SIZE

QMIN, QMAX = -8, 7

Float32 = npt.NDArray[np.float32]
Float16 = npt.NDArray[np.float16]
Int8 = npt.NDArray[np.int8]
UInt8 = npt.NDArray[np.uint8]


def quantize(weight: Float32) -> tuple[Int8, Float16]:
    """Round [..., N] float32 to integers [..., N] in [-8, 7] and scales [..., N/32].

    A group whose scale underflows float16 becomes all zeros with scale 0.

    Raises:
        MobileMoEError: if N is no multiple of 32, or a value is not finite or too large for a
            float16 scale.
    """
    if weight.shape[-1] % GROUP_SIZE:
        raise MobileMoEError(f"quantize: last axis is {weight.shape[-1]}, not a multiple of 32")
    grouped = np.asarray(weight, np.float32).reshape(*weight.shape[:-1], -1, GROUP_SIZE)
    with np.errstate(over="ignore", invalid="ignore"):
        scales = (np.abs(grouped).max(axis=-1) * np.float32(2 / 15)).astype(np.float16)
    if not np.isfinite(scales).all():
        raise MobileMoEError(
            "quantize: a weight is NaN, infinite or above 491,400 (float16 scale overflow)",
            hint="the model has diverged; go back to an earlier checkpoint",
        )
    wide = scales.astype(np.float32)[..., None]
    ratio = np.divide(grouped, wide, out=np.zeros_like(grouped), where=wide > 0)
    integers = np.clip(np.rint(ratio), QMIN, QMAX).astype(np.int8)
    return integers.reshape(weight.shape), scales


def dequantize(integers: Int8, scales: Float16) -> Float32:
    """Return q * scale: [..., N] float32 from [..., N] integers and [..., N/32] scales."""
    wide = np.repeat(scales.astype(np.float32), GROUP_SIZE, axis=-1)
    result: Float32 = integers.astype(np.float32) * wide
    return result


def pack(integers: Int8) -> UInt8:
    """Pack [..., N] integers into [..., N/2] bytes; even positions take the low nibble."""
    nibbles = np.bitwise_and(integers.view(np.uint8), np.uint8(0xF))
    packed: UInt8 = nibbles[..., 0::2] | (nibbles[..., 1::2] << 4)
    return packed


def unpack(packed: UInt8) -> Int8:
    """Invert `pack`: [..., N/2] bytes to [..., N] integers in [-8, 7]."""
    integers = np.empty((*packed.shape[:-1], 2 * packed.shape[-1]), np.int8)
    integers[..., 0::2] = (packed << 4).view(np.int8) >> 4
    integers[..., 1::2] = packed.view(np.int8) >> 4
    return integers


def round_bf16(values: Float32) -> npt.NDArray[np.uint16]:
    """Round float32 to bfloat16 bit patterns, to nearest, ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
    quiet_nan = (bits >> 16) | 0x40
    result: npt.NDArray[np.uint16] = np.where(np.isnan(values), quiet_nan, rounded).astype(
        np.uint16
    )
    return result
