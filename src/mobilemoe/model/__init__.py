"""The PyTorch model: single-device code, parameters named as the checkpoint's tensors."""

from mobilemoe.model.experts import experts
from mobilemoe.model.moe import MoE, Routing, combine, dispatch, route
from mobilemoe.model.transformer import MobileMoE

__all__ = ["MoE", "MobileMoE", "Routing", "combine", "dispatch", "experts", "route"]
