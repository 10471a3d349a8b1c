"""PyTorch operations with a native implementation for float32 on a CPU, differentiable once."""

from mobilemoe.kernels.experts import swiglu_experts
from mobilemoe.kernels.grouped import grouped_linear, runs_native

__all__ = ["grouped_linear", "runs_native", "swiglu_experts"]
