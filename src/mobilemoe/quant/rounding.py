"""What every rounding here needs: the largest magnitude, and the straight-through estimator."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _StraightThrough(torch.autograd.Function):
    """Saves nothing for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rounded: Tensor) -> Tensor:
        return rounded

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        return grad_outputs[0], None


def straight_through(x: Tensor, rounded: Tensor) -> Tensor:
    """Return `rounded`, of the shape and dtype of `x`, whose gradient goes to `x` as it is.

    Unlike x + (rounded - x), where that difference may round, it is `rounded` to the last bit.
    """
    result: Tensor = _StraightThrough.apply(x, rounded)  # type: ignore[no-untyped-call]
    return result


def magnitude(x: Tensor) -> Tensor:
    """Return the largest |x| of the last axis; NaN if there is one. Makes no copy of x."""
    return torch.maximum(x.amax(-1), -x.amin(-1))
