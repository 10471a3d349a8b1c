# The C++ module of training; native/train_bindings.cc defines it. Arrays are contiguous float32
# torch tensors on the CPU; what a function computes it writes into its last arrays.
from collections.abc import Sequence

from torch import Tensor

def grouped_product(
    x: Tensor,
    counts: Sequence[int],
    w: Tensor,
    transposed: bool,
    y: Tensor,
    threads: int,
    kernel: str = "auto",
) -> None: ...
def grouped_outer(
    x: Tensor, counts: Sequence[int], y: Tensor, w: Tensor, threads: int, kernel: str = "auto"
) -> None: ...
def experts_forward(
    x: Tensor,
    counts: Sequence[int],
    gate_up: Tensor,
    down: Tensor,
    h: Tensor,
    y: Tensor,
    threads: int,
    kernel: str = "auto",
) -> None: ...
def experts_backward(
    x: Tensor,
    counts: Sequence[int],
    gate_up: Tensor,
    down: Tensor,
    h: Tensor,
    grad_y: Tensor,
    grad_x: Tensor,
    grad_gate_up: Tensor,
    grad_down: Tensor,
    threads: int,
    kernel: str = "auto",
) -> None: ...
def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    o: Tensor,
    sums: Tensor,
    threads: int,
    kernel: str = "auto",
) -> None: ...
def attend_gradient(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    sums: Tensor,
    grad_o: Tensor,
    grad_q: Tensor,
    grad_k: Tensor,
    grad_v: Tensor,
    threads: int,
    kernel: str = "auto",
) -> None: ...
def kernels() -> list[str]: ...
def choose_experts(scores: Tensor, ids: Tensor, threads: int) -> None: ...
def sort_by_expert(ids: Tensor, experts: int, order: Tensor) -> None: ...
def sum_rows(x: Tensor, slots: Tensor, y: Tensor, threads: int) -> None: ...
def combine_rows(x: Tensor, slots: Tensor, weights: Tensor, y: Tensor, threads: int) -> None: ...
def combine_rows_gradient(
    x: Tensor,
    slots: Tensor,
    weights: Tensor,
    grad_y: Tensor,
    grad_x: Tensor,
    grad_weights: Tensor,
    threads: int,
) -> None: ...
def swiglu(gate: Tensor, up: Tensor, a: Tensor, threads: int) -> None: ...
def swiglu_gradient(
    gate: Tensor, up: Tensor, grad_a: Tensor, grad_gate: Tensor, grad_up: Tensor, threads: int
) -> None: ...
def cross_entropy(
    logits: Tensor, targets: Tensor, losses: Tensor, threads: int, kernel: str = "auto"
) -> None: ...
def rms_norm(
    x: Tensor, weight: Tensor, eps: float, factors: Tensor, y: Tensor, threads: int
) -> None: ...
def rms_norm_gradient(
    x: Tensor,
    weight: Tensor,
    factors: Tensor,
    grad_y: Tensor,
    grad_x: Tensor,
    grad_weight: Tensor,
    threads: int,
) -> None: ...
def rotate_heads(
    x: Tensor, cosines: Tensor, sines: Tensor, eps: float, factors: Tensor, y: Tensor, threads: int
) -> None: ...
def rotate_heads_gradient(
    x: Tensor,
    cosines: Tensor,
    sines: Tensor,
    factors: Tensor,
    grad_y: Tensor,
    grad_x: Tensor,
    threads: int,
) -> None: ...
