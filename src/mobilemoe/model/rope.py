"""Rotary positions on interleaved pairs (2i, 2i+1), with the release's long-context rule.

T tokens, d head dim. The llama3 scaling rule with low = high = 1 is a hard step: a frequency
whose wavelength exceeds the original context is divided by the factor.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mobilemoe.config import ModelConfig


def rope_frequencies(config: ModelConfig) -> Tensor:
    """Return the d/2 angular frequencies per position, float64."""
    exponent = torch.arange(0, config.head_dim, 2, dtype=torch.float64) / config.head_dim
    frequency = config.rope_theta**-exponent
    wavelength = 2 * math.pi / frequency
    too_long = wavelength > config.rope_original_max_position_embeddings
    return torch.where(too_long, frequency / config.rope_scaling_factor, frequency)


def rope_table(config: ModelConfig, tokens: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return cosines and sines [T, d/2], computed in float64 and stored as float32."""
    position = torch.arange(tokens, dtype=torch.float64)
    angle_Td = position[:, None] * rope_frequencies(config)
    return angle_Td.cos().float().to(device), angle_Td.sin().float().to(device)


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the pairs of the last axis of `x` [..., T, d] by the table's angles [T, d/2]."""
    even, odd = x[..., 0::2], x[..., 1::2]
    rotated = torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1)
    return rotated.flatten(-2)
