"""PyTorch operations with a native implementation for float32 on a CPU, differentiable once."""

from mobilemoe.kernels.attention import causal_attention
from mobilemoe.kernels.experts import swiglu_experts
from mobilemoe.kernels.grouped import grouped_linear, native_kernels, runs_native
from mobilemoe.kernels.rows import (
    choose_experts,
    combine_rows,
    cross_entropy_rows,
    gather_rows,
    rotate_heads,
    scaled_rms_norm,
    sort_by_expert,
    swiglu,
)

__all__ = [
    "causal_attention",
    "choose_experts",
    "combine_rows",
    "cross_entropy_rows",
    "gather_rows",
    "grouped_linear",
    "native_kernels",
    "rotate_heads",
    "runs_native",
    "scaled_rms_norm",
    "sort_by_expert",
    "swiglu",
    "swiglu_experts",
]
