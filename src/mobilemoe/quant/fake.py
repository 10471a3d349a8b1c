"""Fake quantisation: float weights that take only the values the exported file can hold.

`enable_fake_quant` wraps a model from outside with `torch.nn.utils.parametrize`: the forward
pass sees rounded weights, the gradient passes straight through to the float weights
(straight-through estimator). What is rounded is exactly what the release rounds: embedding,
linears and experts to INT4, norms to bfloat16; the router stays float32.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from mobilemoe.quant.int4 import QMAX, QMIN
from mobilemoe.weights import GROUP_SIZE, QUANTIZED_KINDS, Weight


def quantize_dequantize(weight: Tensor) -> Tensor:
    """Return the INT4 values nearest to `weight` [..., N]: those of `int4.quantize`, exactly.

    A zero may carry the sign of its weight, which no product of ours can tell.
    """
    grouped = weight.float().unflatten(-1, (-1, GROUP_SIZE))
    scales = (grouped.abs().amax(-1, keepdim=True) * (2 / 15)).half().float()
    safe = torch.where(scales > 0, scales, torch.ones_like(scales))
    integers = (grouped / safe).round_().clamp_(QMIN, QMAX)
    values: Tensor = integers.mul_(scales).flatten(-2).to(weight.dtype)
    return values


class FakeInt4(nn.Module):
    """INT4 rounding with a straight-through gradient."""

    def forward(self, weight: Tensor) -> Tensor:
        """Return rounded [..., N] weights whose gradient is that of the input."""
        with torch.no_grad():
            error = quantize_dequantize(weight) - weight
        return weight + error


class FakeBFloat16(nn.Module):
    """Rounding to bfloat16 with a straight-through gradient."""

    def forward(self, weight: Tensor) -> Tensor:
        """Return `weight` rounded to bfloat16 values, in its own dtype."""
        with torch.no_grad():
            error = weight.bfloat16().to(weight.dtype) - weight
        return weight + error


def enable_fake_quant(model: nn.Module, weights: tuple[Weight, ...]) -> None:
    """Make `model` compute with the values that its INT4 file would hold.

    `weights` names the parameters (`ModelConfig.weights()`); the float parameters stay
    trainable and become `parametrizations.<name>.original` in the state dict.
    """
    for weight in weights:
        rounding = _rounding(weight)
        if rounding is not None:
            module, name = _owner(model, weight.name)
            parametrize.register_parametrization(module, name, rounding)


def float_weights(model: nn.Module, weights: tuple[Weight, ...]) -> dict[str, Tensor]:
    """Return the float tensors behind `model` by checkpoint name, fake-quantised or not."""
    tensors: dict[str, Tensor] = {}
    for weight in weights:
        module, name = _owner(model, weight.name)
        rounded = parametrize.is_parametrized(module, name)
        owner = module.parametrizations[name] if rounded else module  # type: ignore[index]
        tensors[weight.name] = getattr(owner, "original" if rounded else name)
    return tensors


def _rounding(weight: Weight) -> nn.Module | None:
    if weight.kind in QUANTIZED_KINDS:
        return FakeInt4()
    return FakeBFloat16() if weight.kind == "norm" else None


def _owner(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, attribute = name.rpartition(".")
    return model.get_submodule(path), attribute
