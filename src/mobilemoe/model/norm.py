"""RMS normalisation, with and without a learned weight."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mobilemoe.kernels import runs_native, scaled_rms_norm


def rms_norm(x: Tensor, eps: float) -> Tensor:
    """Divide the last axis of `x` by its root mean square, in float32."""
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype)


class RMSNorm(nn.Module):
    """rms_norm(x) * weight."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis of `x`, of length `size`."""
        if runs_native(x, self.weight):
            return scaled_rms_norm(x, self.weight, self.eps)
        return rms_norm(x, self.eps) * self.weight
