"""Fake quantisation: a float model that computes with the values its exported file can hold.

`enable_fake_quant` wraps a model from outside: the forward pass sees rounded weights
(`torch.nn.utils.parametrize`) and, if asked for, int8 activations (hooks, `quant.int8_mode`); the
gradient passes straight through to the floats. What is rounded is exactly what the release
rounds: embedding, linears and experts to INT4, norms to bfloat16; the router stays float32.

The INT4 rounding clamps to [-8, 7], and still no weight gets a gradient of zero: with the scale
2 max / 15 the largest weight of a group sits at 7.5 steps, so a positive one is cut by half a
step (a scale rounded to float16 adds a little), as any rounding may move it. To mask its gradient
would freeze the largest weight of every other group for good.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from mobilemoe.errors import MobileMoEError
from mobilemoe.quant.int4 import QMAX, QMIN
from mobilemoe.quant.int8_mode import round_activations
from mobilemoe.quant.rounding import magnitude, straight_through
from mobilemoe.weights import GROUP_SIZE, QUANTIZED_KINDS, Weight


def int4_scales(weight: Tensor) -> Tensor:
    """Return the scales [..., N / 32] of `int4.quantize`, as float32."""
    grouped = weight.float().unflatten(-1, (-1, GROUP_SIZE))
    scales: Tensor = (magnitude(grouped) * (2 / 15)).half().float()
    return scales


def quantize_dequantize(weight: Tensor, scales: Tensor | None = None) -> Tensor:
    """Return the INT4 values nearest to `weight` [..., N]: those of `int4.quantize`, exactly.

    `scales` are `int4_scales(weight)`, for those who have them.
    """
    scales = (int4_scales(weight) if scales is None else scales).unsqueeze(-1)
    grouped = weight.float().unflatten(-1, (-1, GROUP_SIZE))
    safe = torch.where(scales > 0, scales, torch.ones_like(scales))
    integers = (grouped / safe).round_().clamp_(QMIN, QMAX)
    # A rounded -0.3 is -0.0: adding zero makes it the file's zero.
    values: Tensor = integers.mul_(scales).add_(0.0).flatten(-2).to(weight.dtype)
    return values


class FakeInt4(nn.Module):
    """INT4 rounding with a straight-through gradient.

    `scales` [..., N / 32] are those of the last call: what the int8 experts fold.
    """

    scales: Tensor

    def forward(self, weight: Tensor) -> Tensor:
        """Return rounded [..., N] weights whose gradient is that of the input."""
        with torch.no_grad():
            self.scales = int4_scales(weight)
            rounded = quantize_dequantize(weight, self.scales)
        return straight_through(weight, rounded)


class FakeBFloat16(nn.Module):
    """Rounding to bfloat16 with a straight-through gradient."""

    def forward(self, weight: Tensor) -> Tensor:
        """Return `weight` rounded to bfloat16 values, in its own dtype."""
        return straight_through(weight, weight.detach().bfloat16().to(weight.dtype))


def enable_fake_quant(
    model: nn.Module, weights: tuple[Weight, ...], int8_activations: bool = False
) -> None:
    """Make `model` compute with the values that its INT4 file would hold.

    `weights` names the parameters (`ModelConfig.weights()`); the float parameters stay
    trainable and become `parametrizations.<name>.original` in the state dict. With
    `int8_activations` what products read is rounded as the engine's int8 mode does, in training
    and evaluation alike.

    Raises:
        MobileMoEError: if `model` is fake-quantised already.
    """
    if any(parametrize.is_parametrized(module) for module in model.modules()):
        raise MobileMoEError(
            "the model is fake-quantised already",
            hint="take a fresh model and load the float weights into it",
        )
    for weight in weights:
        rounding = _rounding(weight)
        if rounding is not None:
            module, name = _owner(model, weight.name)
            parametrize.register_parametrization(module, name, rounding)
    if int8_activations:
        round_activations(model, weights)


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
