"""Products of rows, sorted by expert, with their experts' matrices: native/train_experts.h.

N rows, E experts, I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from mobilemoe.errors import MobileMoEError
from mobilemoe.kernels import _training

Result = TypeVar("Result")


def runs_native(*tensors: Tensor) -> bool:
    """Whether the native operations take `tensors`: float32 on the CPU.

    Under autocast and in what `torch.compile` traces PyTorch has its own way.
    """
    is_plain = all(t.device.type == "cpu" and t.dtype == torch.float32 for t in tensors)
    return is_plain and not (torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling())


def require_native(**tensors: Tensor) -> None:
    """Refuse what the native operations cannot read.

    Raises:
        MobileMoEError: naming the first tensor that is not float32 on the CPU.
    """
    for name, tensor in tensors.items():
        if tensor.device.type != "cpu" or tensor.dtype != torch.float32:
            raise MobileMoEError(
                f"{name} is {tensor.dtype} on {tensor.device}; allowed: torch.float32 on cpu",
                hint="mobilemoe.model.experts takes any floating type and device",
            )


def once(backward: Callable[..., Result]) -> Callable[..., Result]:
    """Make a backward pass refuse to be differentiated itself, which would give wrong zeros.

    PyTorch's `once_differentiable` lets it pass when the incoming gradient is a constant.
    """

    def checked(ctx: Any, *grad_outputs: Tensor) -> Result:
        if torch.is_grad_enabled():
            raise MobileMoEError(
                "the native operations have no second derivative (create_graph=True)",
                hint="use float64, which PyTorch's own operations compute",
            )
        return backward(ctx, *grad_outputs)

    return checked


def native_kernels() -> tuple[str, ...]:
    """Return the instruction sets that this CPU runs, the one that is used first."""
    return tuple(_training.kernels())


def grouped_linear(x_NI: Tensor, counts: tuple[int, ...], w_EIO: Tensor) -> Tensor:
    """Return [N, O]: expert e multiplies the next `counts[e]` rows by `w[e]`.

    The bits depend on neither the number of threads nor the other experts' rows. Gradients
    exist for x and w, once.

    Raises:
        MobileMoEError: unless both are float32 on the CPU.
        ValueError: if the shapes do not fit, or the counts do not sum to N.
    """
    require_native(x=x_NI, w=w_EIO)
    y_NO: Tensor = _GroupedLinear.apply(x_NI, counts, w_EIO)  # type: ignore[no-untyped-call]
    return y_NO


class _GroupedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_NI: Tensor, counts: tuple[int, ...], w_EIO: Tensor) -> Tensor:
        x_NI, w_EIO = x_NI.contiguous(), w_EIO.contiguous()
        y_NO = x_NI.new_empty(len(x_NI), w_EIO.shape[-1])
        _training.grouped_product(x_NI, counts, w_EIO, False, y_NO, torch.get_num_threads())
        ctx.save_for_backward(x_NI, w_EIO)
        ctx.counts = counts
        return y_NO

    @staticmethod
    @once
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        x_NI, w_EIO = ctx.saved_tensors
        grad_y_NO, threads = grad_outputs[0].contiguous(), torch.get_num_threads()
        grad_x_NI = grad_w_EIO = None
        if ctx.needs_input_grad[0]:
            grad_x_NI = torch.empty_like(x_NI)
            _training.grouped_product(grad_y_NO, ctx.counts, w_EIO, True, grad_x_NI, threads)
        if ctx.needs_input_grad[2]:
            grad_w_EIO = torch.empty_like(w_EIO)
            _training.grouped_outer(x_NI, ctx.counts, grad_y_NO, grad_w_EIO, threads)
        return grad_x_NI, None, grad_w_EIO
