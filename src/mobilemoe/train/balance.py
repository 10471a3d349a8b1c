"""Load balancing without an auxiliary loss: nudge the bias of each expert (arXiv 2408.15664).

E experts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mobilemoe.model import MobileMoE, MoE, Routing

BIAS_UPDATE_RATE = 1e-3


class BiasBalancer:
    """Keeps a float32 bias per expert and shows the model its bfloat16 value.

    The file stores the bias as bfloat16, so the model routes with that value from the first
    step on: what ships is what was trained.
    """

    def __init__(self, model: MobileMoE) -> None:
        self._layers = [m for m in model.modules() if isinstance(m, MoE)]
        self.bias = [layer.expert_bias.clone() for layer in self._layers]

    def update(self, trace: Sequence[Routing]) -> None:
        """Raise the bias of underloaded experts and lower that of overloaded ones."""
        for bias_E, layer, routing in zip(self.bias, self._layers, trace, strict=True):
            load_E = routing.tokens_per_expert_E.float()
            bias_E += BIAS_UPDATE_RATE * (load_E.mean() - load_E).sign()
            layer.expert_bias.copy_(bias_E.bfloat16())

    def load(self, bias: Sequence[Tensor]) -> None:
        """Restore the float32 biases of a saved run."""
        for own_E, saved_E, layer in zip(self.bias, bias, self._layers, strict=True):
            own_E.copy_(saved_E)
            layer.expert_bias.copy_(own_E.bfloat16())


def worst_load(trace: Sequence[Routing]) -> float:
    """Return the largest load of any expert as a multiple of its layer's mean (1: balanced)."""
    loads = [r.tokens_per_expert_E.float() for r in trace]
    return max((float(load.max() / load.mean()) for load in loads), default=1.0)


def dropped_share(trace: Sequence[Routing]) -> float:
    """Return the share of (token, expert) choices that found no slot."""
    choices = sum(r.topk_ids_TK.numel() for r in trace)
    return sum(r.dropped for r in trace) / choices if choices else 0.0


def tokens_per_expert(trace: Sequence[Routing]) -> Tensor:
    """Return the counts [layers, E] of one batch."""
    return torch.stack([r.tokens_per_expert_E for r in trace])
