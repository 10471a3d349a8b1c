"""Every tensor of a MobileMoE checkpoint, once: name, shape and kind.

Parameter counts, file sizes, the writer, the reader's checks and the PyTorch module all
follow from this one list, so a predicted size and a written size cannot disagree.

D hidden, F routed expert width, S shared (or dense) width, E experts, H query heads,
G KV heads, d head dim, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from mobilemoe.config import ModelConfig

Kind = Literal["embedding", "linear", "expert", "router", "norm", "expert_bias"]
WeightFormat = Literal["bf16", "int4"]

GROUP_SIZE = 32
QUANTIZED_KINDS: frozenset[Kind] = frozenset({"embedding", "linear", "expert"})


@dataclass(frozen=True)
class Weight:
    """One logical tensor: its BF16 checkpoint name, its unpacked shape and its kind.

    2-D weights are [out, in]; experts are [E, in, out]. INT4 groups of `GROUP_SIZE` run
    along the last axis in both.
    """

    name: str
    shape: tuple[int, ...]
    kind: Kind

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    def bytes(self, weight_format: WeightFormat) -> int:
        """Bytes of tensor data on disk, quantisation scales included."""
        if weight_format == "int4" and self.kind in QUANTIZED_KINDS:
            return self.size // 2 + 2 * self.size // GROUP_SIZE
        if weight_format == "int4" and self.kind == "router":
            return 4 * self.size
        return 2 * self.size


def weights(config: ModelConfig) -> Iterator[Weight]:
    """Yield the tensors of `config` in file order."""
    V, D = config.vocab_size, config.hidden_size
    yield Weight("model.embed_tokens.weight", (V, D), "embedding")
    for layer in range(config.num_hidden_layers):
        yield from _layer(config, layer)
    yield Weight("model.norm.weight", (D,), "norm")
    if not config.tie_word_embeddings:
        yield Weight("lm_head.weight", (V, D), "linear")


def _layer(config: ModelConfig, layer: int) -> Iterator[Weight]:
    D, d = config.hidden_size, config.head_dim
    H, G = config.num_attention_heads, config.num_key_value_heads
    prefix = f"model.layers.{layer}"
    yield Weight(f"{prefix}.input_layernorm.weight", (D,), "norm")
    yield Weight(f"{prefix}.self_attn.q_proj.weight", (H * d, D), "linear")
    yield Weight(f"{prefix}.self_attn.k_proj.weight", (G * d, D), "linear")
    yield Weight(f"{prefix}.self_attn.v_proj.weight", (G * d, D), "linear")
    yield Weight(f"{prefix}.self_attn.o_proj.weight", (D, H * d), "linear")
    yield Weight(f"{prefix}.post_attention_layernorm.weight", (D,), "norm")
    if config.is_moe_layer(layer):
        yield from _moe(config, f"{prefix}.feed_forward")
    else:
        yield from _swiglu(config, f"{prefix}.feed_forward")


def _moe(config: ModelConfig, prefix: str) -> Iterator[Weight]:
    D, F, E = config.hidden_size, config.intermediate_size, config.num_local_experts
    yield Weight(f"{prefix}.router.weight", (E, D), "router")
    yield Weight(f"{prefix}.expert_bias", (E,), "expert_bias")
    yield Weight(f"{prefix}.experts.gate_up_proj", (E, D, 2 * F), "expert")
    yield Weight(f"{prefix}.experts.down_proj", (E, F, D), "expert")
    if config.intermediate_size_mlp:
        yield from _swiglu(config, f"{prefix}.shared_expert")


def _swiglu(config: ModelConfig, prefix: str) -> Iterator[Weight]:
    D, S = config.hidden_size, config.intermediate_size_mlp
    yield Weight(f"{prefix}.gate_proj.weight", (S, D), "linear")
    yield Weight(f"{prefix}.up_proj.weight", (S, D), "linear")
    yield Weight(f"{prefix}.down_proj.weight", (D, S), "linear")
