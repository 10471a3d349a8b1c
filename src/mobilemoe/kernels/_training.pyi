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
def kernels() -> list[str]: ...
