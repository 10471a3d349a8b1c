"""The PyTorch model: single-device code, parameters named as the checkpoint's tensors."""

from mobilemoe.model.moe import MoE, Routing, combine, dispatch, experts, route
from mobilemoe.model.transformer import MobileMoE

__all__ = ["MoE", "MobileMoE", "Routing", "combine", "dispatch", "experts", "route"]
