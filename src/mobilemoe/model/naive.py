"""The MoE layer as the formula reads, token by token: slow, and the oracle of every fast path."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mobilemoe.model.moe import MoE


def naive_moe(layer: MoE, x_TD: Tensor) -> Tensor:
    """Return what `layer` computes for tokens [T, D] when nothing is dropped."""
    return torch.stack([_one_token(layer, x_D) for x_D in x_TD])


def _one_token(layer: MoE, x_D: Tensor) -> Tensor:
    config = layer.config
    scores_E = torch.sigmoid(layer.router.weight @ x_D)
    biased = (scores_E + layer.expert_bias).tolist()
    ranked = sorted(range(config.num_local_experts), key=lambda e: (-biased[e], e))
    chosen = ranked[: config.num_experts_per_tok]
    total = sum(scores_E[e] for e in chosen) + 1e-20
    y_D = torch.zeros_like(x_D)
    for e in chosen:
        gate_F, up_F = (x_D @ layer.experts.gate_up_proj[e]).chunk(2)
        weight = scores_E[e] / total * config.routed_scaling_factor
        y_D = y_D + weight * ((F.silu(gate_F) * up_F) @ layer.experts.down_proj[e])
    return y_D + layer.shared_expert(x_D) if layer.shared_expert is not None else y_D
