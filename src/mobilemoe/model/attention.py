"""Grouped-query causal attention with RoPE, then RMS over each head without a learned weight.

B batch, T tokens, D hidden, H query heads, G KV heads, d head dim.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mobilemoe.config import ModelConfig
from mobilemoe.kernels import causal_attention, rotate_heads, runs_native
from mobilemoe.model.norm import rms_norm
from mobilemoe.model.rope import apply_rope


class Attention(nn.Module):
    """softmax(q k^T / sqrt(d)) v with q and k rotated and normalised.

    `stored` is what becomes of keys and values [B, G, T, d] in a cache: nothing, unless fake
    quantisation puts its own there.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        D, d = config.hidden_size, config.head_dim
        H, G = config.num_attention_heads, config.num_key_value_heads
        self.q_proj = nn.Linear(D, H * d, bias=False)
        self.k_proj = nn.Linear(D, G * d, bias=False)
        self.v_proj = nn.Linear(D, G * d, bias=False)
        self.o_proj = nn.Linear(H * d, D, bias=False)
        self.stored: nn.Module = nn.Identity()

    def forward(self, x_BTD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Return [B, T, D]; `cos` and `sin` are [T, d/2]."""
        q_BHTd = self._rotated(self.q_proj(x_BTD), cos, sin)
        k_BGTd = self.stored(self._rotated(self.k_proj(x_BTD), cos, sin))
        v_BGTd = self.stored(self._heads(self.v_proj(x_BTD)))
        projected: Tensor = self.o_proj(attend(q_BHTd, k_BGTd, v_BGTd).flatten(2))
        return projected

    def _rotated(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Split [B, T, n d] into [B, n, T, d], rotated and normalised."""
        if runs_native(x, cos, sin):
            x_BTnd = x.unflatten(-1, (-1, self.config.head_dim))
            return rotate_heads(x_BTnd, cos, sin, self.config.rms_norm_eps)
        return rms_norm(apply_rope(self._heads(x), cos, sin), self.config.rms_norm_eps)

    def _heads(self, x: Tensor) -> Tensor:
        """Split [B, T, n d] into [B, n, T, d]."""
        heads: Tensor = x.unflatten(-1, (-1, self.config.head_dim)).transpose(1, 2)
        return heads


def attend(q_BHTd: Tensor, k_BGTd: Tensor, v_BGTd: Tensor) -> Tensor:
    """Return the causal attention [B, T, H, d] of grouped queries."""
    if runs_native(q_BHTd, k_BGTd, v_BGTd):
        return causal_attention(q_BHTd, k_BGTd, v_BGTd)
    repeat = q_BHTd.shape[1] // k_BGTd.shape[1]
    k_BHTd, v_BHTd = (x.repeat_interleave(repeat, dim=1) for x in (k_BGTd, v_BGTd))
    o_BHTd = F.scaled_dot_product_attention(q_BHTd, k_BHTd, v_BHTd, is_causal=True)
    return o_BHTd.transpose(1, 2)
