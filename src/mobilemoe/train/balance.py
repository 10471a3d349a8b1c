"""Load balancing without an auxiliary loss: nudge the bias of each expert (arXiv 2408.15664).

L MoE layers, E experts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mobilemoe.model import MobileMoE, MoE


class BiasBalancer:
    """Keeps a float32 bias per expert and shows the model its bfloat16 value.

    The file stores the bias as bfloat16, so the model routes with that value from the first
    step on: what ships is what was trained.
    """

    def __init__(self, model: MobileMoE, rate: float) -> None:
        self._layers = [m for m in model.modules() if isinstance(m, MoE)]
        self._rate = rate
        self.bias = [layer.expert_bias.clone() for layer in self._layers]

    def update(self, counts_LE: Tensor) -> None:
        """Raise the bias of underloaded experts and lower that of overloaded ones.

        `counts_LE` are the choices of one optimiser step, summed over all devices.
        """
        for bias_E, layer, load_E in zip(self.bias, self._layers, counts_LE.float(), strict=True):
            bias_E += self._rate * (load_E.mean() - load_E).sign()
            layer.expert_bias.copy_(bias_E.bfloat16())

    def no_loads(self) -> Tensor:
        """Return zeros [L, E], to add the choices of many steps to."""
        if not self.bias:
            return torch.zeros(0, 0, dtype=torch.long)
        return torch.zeros_like(torch.stack(self.bias), dtype=torch.long)

    def load(self, bias: Sequence[Tensor]) -> None:
        """Restore the float32 biases of a saved run."""
        for own_E, saved_E, layer in zip(self.bias, bias, self._layers, strict=True):
            own_E.copy_(saved_E)
            layer.expert_bias.copy_(own_E.bfloat16())


def fullest_expert(counts_LE: Tensor) -> tuple[int, int]:
    """Return layer and expert of the largest load as a multiple of its layer's mean."""
    load_LE = counts_LE.float()
    place = int((load_LE / load_LE.mean(1, keepdim=True).clamp(min=1e-9)).argmax())
    return divmod(place, counts_LE.shape[1])


def worst_load(counts_LE: Tensor) -> float:
    """Return the largest load of any expert as a multiple of its layer's mean (1: balanced)."""
    if not counts_LE.numel():
        return 1.0
    load_LE = counts_LE.float()
    return float((load_LE.amax(1) / load_LE.mean(1).clamp(min=1e-9)).max())
