"""Activations as the engine's fast mode reads them: int8, dynamic, straight-through gradients.

A block of 32 (the cache: a head) becomes integers times one scale, max |x| / 127, rounded to
nearest, ties to even: native/quantize_scale.h, integer for integer and scale for scale. The range
is symmetric and made from the block itself, so nothing is ever clamped: the largest integer is
127 (1 + 2^-24)^2 rounded, which is 127. The gradient of the rounding is therefore that of the
identity everywhere; no part of the range needs a gradient of zero, and the scale gets none.

N elements along the last axis, a multiple of the block; B blocks.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mobilemoe.quant.rounding import magnitude, straight_through
from mobilemoe.weights import GROUP_SIZE

LEVELS = 127.0
SMALLEST = 1e-30  # a block whose largest magnitude is below it counts as zeros


class BlockScales(NamedTuple):
    """Per block, [..., B, 1] float32: value = integer * scale, integer = round(value * inverse).

    A zero block has scale 0, one with a NaN or an infinity has scale NaN; both have inverse 0.
    """

    scale: Tensor
    inverse: Tensor


def quantize_activations(x: Tensor, block: int = GROUP_SIZE) -> tuple[Tensor, Tensor]:
    """Return integers [..., N] (as float32) and scales [..., B] of float32 `x` [..., N]."""
    blocks = x.unflatten(-1, (-1, block))
    scales = block_scales(blocks)
    rounded = (blocks * scales.inverse).round_()
    integers = torch.where(scales.inverse > 0, rounded, torch.zeros_like(rounded))
    return integers.flatten(-2), scales.scale.squeeze(-1)


@torch.no_grad()
def int8_values(x: Tensor, terms: int = 1, block: int = GROUP_SIZE) -> Tensor:
    """Return the values [..., N] that int8 leaves of `x`, in its dtype.

    With two `terms` a second int8 row holds what the first rounds away (native/activations.h).
    A block with a NaN or an infinity becomes NaN.
    """
    wide = x.float()
    first = _one_term(wide, block)
    values = first if terms == 1 else _one_term(wide - first, block).add_(first)
    result: Tensor = values.to(x.dtype)
    return result


def fake_int8(x: Tensor, terms: int = 1, block: int = GROUP_SIZE) -> Tensor:
    """Return `int8_values` with the gradient of the identity."""
    return straight_through(x, int8_values(x, terms, block))


def _one_term(x: Tensor, block: int) -> Tensor:
    blocks = x.unflatten(-1, (-1, block))
    scale, inverse = block_scales(blocks)
    values: Tensor = (blocks * inverse).round_().mul_(scale).flatten(-2)
    return values


def block_scales(blocks: Tensor) -> BlockScales:
    """Return the scales of float32 `blocks` [..., B, n]."""
    largest = magnitude(blocks).unsqueeze(-1)
    usable = (largest >= SMALLEST) & (largest < torch.inf)
    # Tensors, not Python numbers: torch turns a division of or by a number into a product with
    # a rounded reciprocal, which is another scale.
    levels = torch.full_like(largest, LEVELS)
    scale = torch.where(usable, largest / levels, largest * 0)
    return BlockScales(scale, torch.where(usable, levels / largest, torch.zeros_like(largest)))
