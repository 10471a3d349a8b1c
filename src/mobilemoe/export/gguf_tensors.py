"""Which tensors the GGUF file has, and how each follows from the checkpoint's.

D hidden, F routed expert width, E experts, H query heads, G KV heads, d head dim.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import pi, prod
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mobilemoe.checkpoint import Checkpoint, read_weight
from mobilemoe.checkpoint.layout import stored_names
from mobilemoe.config import ModelConfig
from mobilemoe.export.q4_0 import BLOCK_BYTES, Float32, Requantizer, UInt8, q4_0_rows
from mobilemoe.quant.int4 import dequantize, unpack
from mobilemoe.weights import GROUP_SIZE, Weight

Half = Literal["gate", "up"]


@dataclass(frozen=True)
class GgufTensor:
    """One tensor of the file: its logical shape, and whether it is stored as Q4_0 or as F32.

    `source` names the checkpoint's weight; without one the content is made (`made`). `heads`:
    rows of each head are reordered for the other RoPE; `half`: which half of gate_up it is.
    """

    name: str
    shape: tuple[int, ...]
    packed: bool
    source: str | None = None
    heads: int = 0
    half: Half | None = None
    made: Literal["ones", "rope factors"] = "ones"

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Shape of the array that is written: bytes if packed."""
        if not self.packed:
            return self.shape
        return (*self.shape[:-1], self.shape[-1] // GROUP_SIZE * BLOCK_BYTES)

    @property
    def nbytes(self) -> int:
        """Bytes in the file, without padding."""
        return prod(self.stored_shape) * (1 if self.packed else 4)


def gguf_tensors(config: ModelConfig, weight_type: str) -> tuple[GgufTensor, ...]:
    """Return every tensor of the file, in order."""
    return tuple(_tensors(config, weight_type == "q4_0"))


def _tensors(config: ModelConfig, packed: bool) -> Iterator[GgufTensor]:
    V, D, d = config.vocab_size, config.hidden_size, config.head_dim
    head = "model.embed_tokens.weight" if config.tie_word_embeddings else "lm_head.weight"
    yield GgufTensor("token_embd.weight", (V, D), packed, "model.embed_tokens.weight")
    yield GgufTensor("output_norm.weight", (D,), False, "model.norm.weight")
    yield GgufTensor("output.weight", (V, D), packed, head)  # this graph has no tied head
    yield GgufTensor("rope_freqs.weight", (d // 2,), False, made="rope factors")
    for layer in range(config.num_hidden_layers):
        yield from _attention(config, layer, packed)
        yield from _feed_forward(config, layer, packed)


def _attention(config: ModelConfig, layer: int, packed: bool) -> Iterator[GgufTensor]:
    D, d = config.hidden_size, config.head_dim
    H, G = config.num_attention_heads, config.num_key_value_heads
    to, of = f"blk.{layer}", f"model.layers.{layer}"
    attention = f"{of}.self_attn"
    yield GgufTensor(f"{to}.attn_norm.weight", (D,), False, f"{of}.input_layernorm.weight")
    yield GgufTensor(f"{to}.attn_q.weight", (H * d, D), packed, f"{attention}.q_proj.weight", H)
    yield GgufTensor(f"{to}.attn_k.weight", (G * d, D), packed, f"{attention}.k_proj.weight", G)
    yield GgufTensor(f"{to}.attn_v.weight", (G * d, D), packed, f"{attention}.v_proj.weight")
    yield GgufTensor(f"{to}.attn_output.weight", (D, H * d), packed, f"{attention}.o_proj.weight")
    yield GgufTensor(f"{to}.attn_q_norm.weight", (d,), False)
    yield GgufTensor(f"{to}.attn_k_norm.weight", (d,), False)
    norm = f"{of}.post_attention_layernorm.weight"
    yield GgufTensor(f"{to}.ffn_norm.weight", (D,), False, norm)


def _feed_forward(config: ModelConfig, layer: int, packed: bool) -> Iterator[GgufTensor]:
    D, S = config.hidden_size, config.intermediate_size_mlp
    F, E = config.intermediate_size, config.num_local_experts
    to, of = f"blk.{layer}", f"model.layers.{layer}.feed_forward"
    moe = config.is_moe_layer(layer)
    suffix, swiglu = ("_shexp", f"{of}.shared_expert") if moe else ("", of)
    for part, shape in (("gate", (S, D)), ("up", (S, D)), ("down", (D, S))):
        name = f"{to}.ffn_{part}{suffix}.weight"
        yield GgufTensor(name, shape, packed, f"{swiglu}.{part}_proj.weight")
    if moe:
        yield GgufTensor(f"{to}.ffn_gate_inp.weight", (E, D), False, f"{of}.router.weight")
        yield GgufTensor(f"{to}.exp_probs_b.bias", (E,), False, f"{of}.expert_bias")
        both, down = f"{of}.experts.gate_up_proj", f"{of}.experts.down_proj"
        yield GgufTensor(f"{to}.ffn_gate_exps.weight", (E, F, D), packed, both, half="gate")
        yield GgufTensor(f"{to}.ffn_up_exps.weight", (E, F, D), packed, both, half="up")
        yield GgufTensor(f"{to}.ffn_down_exps.weight", (E, D, F), packed, down)


class TensorSource:
    """Makes the content of GGUF tensors from an INT4 checkpoint."""

    def __init__(self, checkpoint: Checkpoint, requantizer: Requantizer) -> None:
        """Open the weights; experts are rounded by `requantizer`."""
        self._config = checkpoint.config
        self._tensors = checkpoint.tensors()
        self._weights = {weight.name: weight for weight in self._config.weights()}
        self._requantizer = requantizer

    def read(self, tensor: GgufTensor) -> npt.NDArray[Any]:
        """Return the array that is written for `tensor`."""
        if tensor.source is None:
            return self._made(tensor)
        weight = self._weights[tensor.source]
        if weight.kind == "expert":
            return self._experts(tensor, weight)
        if tensor.packed:
            return self._packed(tensor, weight)
        values = read_weight(self._tensors, weight, "int4")
        return _reorder(values, tensor.heads)

    def _made(self, tensor: GgufTensor) -> Float32:
        if tensor.made == "rope factors":
            return rope_factors(self._config)
        return np.ones(tensor.shape, np.float32)

    def _packed(self, tensor: GgufTensor, weight: Weight) -> UInt8:
        """Return a 2-D INT4 weight as Q4_0: the same levels and scales, in another order."""
        values, scales = (self._tensors.read(name) for name in stored_names(weight))
        blocks = q4_0_rows(unpack(values), scales)
        return _reorder(blocks, tensor.heads)

    def _experts(self, tensor: GgufTensor, weight: Weight) -> npt.NDArray[Any]:
        """Return experts [E, in, out] (or a half of out) as [E, out, in]."""
        values, scales = stored_names(weight)
        E, inputs, _ = weight.shape
        encode: Callable[[Float32], npt.NDArray[Any]] = (
            self._requantizer.rows if tensor.packed else np.ascontiguousarray
        )
        dtype = np.uint8 if tensor.packed else np.float32
        out = np.empty(tensor.stored_shape, dtype)
        for expert in range(E):
            rows = expert * inputs, (expert + 1) * inputs
            integers = unpack(self._tensors.rows(values, *rows))
            wide_IO = dequantize(integers, self._tensors.rows(scales, *rows))
            F = tensor.shape[1]
            if tensor.half is not None:
                wide_IO = wide_IO[:, :F] if tensor.half == "gate" else wide_IO[:, F:]
            out[expert] = encode(np.ascontiguousarray(wide_IO.T))
        return out


def _reorder(rows: npt.NDArray[Any], heads: int) -> npt.NDArray[Any]:
    """Put the even rows of each head first: from interleaved RoPE pairs to halves."""
    if heads == 0:
        return rows
    split = rows.reshape(heads, -1, 2, rows.shape[-1])  # [heads, d / 2, even or odd, width]
    return np.ascontiguousarray(split.swapaxes(1, 2).reshape(rows.shape))


def rope_factors(config: ModelConfig) -> Float32:
    """Return plain frequency / real frequency [d/2]: 1, or the factor for long wavelengths."""
    plain = config.rope_theta ** (-np.arange(0, config.head_dim, 2) / config.head_dim)
    long = 2 * pi / plain > config.rope_original_max_position_embeddings
    return np.where(long, config.rope_scaling_factor, 1.0).astype(np.float32)
