"""Where a model's activations become int8: wherever the engine's int8 mode rounds them.

Attention's projections read two int8 terms, the shared expert, dense layers and the head one
(native/attention.h, native/model_parts.h), the routed experts fold their scales
(`quant.experts`), and keys and values lie in the cache as int8 (native/kv_cache.h), which moves
the logits of a small model more than all the others. The router, norms, rotation, softmax and the
lookup of embeddings stay float. Left out is what the engine rounds to 14 bits or more in its
attention: queries and softmax weights, 1 / 128 of the error of an int8 or less.

Hooks do it from outside. q, k and v read one input, as gate and up do: it is rounded once, where
it enters their module. The head reads the output of the final norm, which nothing else does, so
a loop that multiplies hidden states with the head's matrix itself needs no change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from mobilemoe.quant.activations import fake_int8
from mobilemoe.quant.experts import int8_experts
from mobilemoe.weights import Weight

ATTENTION_TERMS = 2
FINAL_NORM = "model.norm.weight"
HEAD_MULTIPLE, LONGEST_HEAD = 16, 512  # of an int8 cache: native/kv_cache.cc


def round_activations(model: nn.Module, weights: tuple[Weight, ...]) -> None:
    """Round every activation of `model`, whose weights are parametrised as INT4 already."""
    for weight in weights:
        path, _, name = weight.name.removesuffix(".weight").rpartition(".")
        if weight.name == FINAL_NORM:
            model.get_submodule(f"{path}.{name}").register_forward_hook(_round_output)
        elif name == "q_proj":
            attention = model.get_submodule(path)
            _round_input(attention, ATTENTION_TERMS)
            attention.stored = FakeCache()
        elif name == "o_proj":
            _round_input(model.get_submodule(f"{path}.{name}"), ATTENTION_TERMS)
        elif name == "gate_proj":
            _round_input(model.get_submodule(path))
        elif name == "down_proj" and weight.kind == "linear":
            _round_input(model.get_submodule(f"{path}.{name}"))
        elif name == "gate_up_proj":
            experts: Any = model.get_submodule(path)
            roundings = experts.parametrizations
            experts.compute = Int8Experts(roundings.gate_up_proj[0], roundings.down_proj[0])


@dataclass(frozen=True)
class Int8Experts:
    """`mobilemoe.model.experts` in int8; the arguments are what rounds the two weights."""

    gate_up: nn.Module
    down: nn.Module

    def __call__(
        self, x_ND: Tensor, counts: tuple[int, ...], gate_up_EDF: Tensor, down_EFD: Tensor
    ) -> Tensor:
        """Return [N, D]; the weights are those that the roundings gave last."""
        scales: tuple[Any, Any] = self.gate_up.scales, self.down.scales
        return int8_experts(x_ND, counts, gate_up_EDF, down_EFD, *scales)


class FakeCache(nn.Module):
    """Keys and values as the engine's cache holds them, with a straight-through gradient."""

    def forward(self, x: Tensor) -> Tensor:
        """Round [..., d] with a scale per head and position.

        A head size that the int8 cache does not take stays as it is: the engine keeps it in F16.
        """
        d = x.shape[-1]
        is_int8 = d % HEAD_MULTIPLE == 0 and d <= LONGEST_HEAD
        return fake_int8(x, block=d) if is_int8 else x


def _round_input(module: nn.Module, terms: int = 1) -> None:
    module.register_forward_pre_hook(_RoundInput(terms))


@dataclass(frozen=True)
class _RoundInput:
    """Rounds the first argument of a module; an object, so that models with it can be copied."""

    terms: int

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (fake_int8(args[0], self.terms), *args[1:])


def _round_output(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
    return fake_int8(output)
