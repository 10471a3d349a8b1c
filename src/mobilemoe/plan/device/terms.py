"""The work of one step, term by term: time is the sum of cost factor times amount.

A decode step reads every active weight once, multiplies it with one token, and attends to the
cache. A prompt goes through in chunks: each chunk unpacks every expert that any of its tokens
chose, multiplies, and attends to everything before it. Amounts are in seconds at the device's
plain rates, so that a cost factor says how many times longer the real work takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from mobilemoe.config import KvFormat, ModelConfig
from mobilemoe.weights import WeightFormat

CEILING, SECONDS = "x the time at the plain rate", "s"
# Terms that belong to the weights, and to the KV cache, with the unit of their cost factor.
WEIGHT_TERMS: Mapping[str, str] = {
    "decode_dense": CEILING,  # reading the weights that every token uses
    "decode_experts": CEILING,  # reading the chosen experts
    "decode_macs": CEILING,  # multiplying, which shows when the weights are in the cache
    "decode_layers": SECONDS,  # per layer: barriers, norms, routing
    "prefill_dense": CEILING,  # multiplying with the weights that every token uses
    "prefill_experts": CEILING,  # unpacking each expert once per chunk, and multiplying
    "prefill_rows": CEILING,  # per number between the products: norms, quantisation, SwiGLU
}
ATTENTION_TERMS: Mapping[str, str] = {
    "decode_attention": CEILING,  # products of one token's heads with the cache
    "decode_kv": CEILING,  # reading the cache
    "prefill_attention": CEILING,  # products of a chunk's heads with the cache
}


@dataclass(frozen=True)
class Rates:
    """Plain rates of one thread count, and what else of a device changes the amounts.

    `projection_passes`: how often the attention projections of INT4 weights are multiplied; the
    native engine splits their input into two int8 terms.
    """

    read_bytes_s: float
    mac_s: float
    cache_bytes: float
    chunk_tokens: int
    projection_passes: int = 1


@dataclass(frozen=True)
class Shape:
    """Sums over the tensors of one model.

    Bytes of a decode step, of the chosen experts and of the rest; multiply-accumulates per token
    without attention scores: of the attention projections, of the chosen experts, of the output
    head, and of the rest. `rows`: numbers per token that are computed between the products.
    """

    total_bytes: float
    dense_bytes: float
    expert_bytes: float
    projection_macs: float
    expert_macs: float
    head_macs: float
    other_macs: float
    rows: float


@lru_cache(maxsize=4096)
def shape_of(config: ModelConfig, weight_format: WeightFormat = "int4") -> Shape:
    """Return the sums for `config`."""
    step = config.step_weight_bytes(weight_format)
    dense = config.step_weight_bytes(weight_format, 0) if config.is_moe else step
    body = config.macs_per_token(head=False)
    projections = sum(
        w.size for w in config.weights() if w.kind == "linear" and ".self_attn." in w.name
    )
    experts = sum(w.size for w in config.weights() if w.kind == "expert")
    chosen = experts // config.num_local_experts * config.num_experts_per_tok if experts else 0
    return Shape(
        total_bytes=config.weight_bytes(weight_format),
        dense_bytes=dense,
        expert_bytes=step - dense,
        projection_macs=projections,
        expert_macs=chosen,
        head_macs=config.vocab_size * config.hidden_size,
        other_macs=body - projections - chosen,
        rows=config.num_hidden_layers * _rows_per_layer(config),
    )


def _rows_per_layer(config: ModelConfig) -> int:
    """Numbers of one token that norms, RoPE, SwiGLU, quantisation and sums write in a layer."""
    D, F, S = config.hidden_size, config.intermediate_size, config.intermediate_size_mlp
    heads = config.num_attention_heads + 2 * config.num_key_value_heads
    return 6 * D + 2 * heads * config.head_dim + 3 * S + config.num_experts_per_tok * (D + 3 * F)


def decode_terms(
    config: ModelConfig,
    depth: float,
    rates: Rates,
    weight_format: WeightFormat = "int4",
    kv_format: KvFormat = "int8",
) -> dict[str, float]:
    """Return the amounts of one decoded token with `depth` positions in the cache."""
    shape = shape_of(config, weight_format)
    kv_bytes = (depth + 1) * config.kv_bytes_per_token(kv_format)
    missed = _missed(shape.total_bytes + kv_bytes, rates)
    macs = _dense_macs(shape, rates, weight_format) + shape.expert_macs + shape.head_macs
    return {
        "decode_dense": missed * shape.dense_bytes / rates.read_bytes_s,
        "decode_experts": missed * shape.expert_bytes / rates.read_bytes_s,
        "decode_macs": macs / rates.mac_s,
        "decode_layers": config.num_hidden_layers,
        "decode_attention": _attention_macs(config) * (depth + 1) / rates.mac_s,
        "decode_kv": kv_bytes / rates.read_bytes_s,
    }


def prefill_terms(
    config: ModelConfig, tokens: int, depth: float, rates: Rates, weight_format: WeightFormat
) -> dict[str, float]:
    """Return the amounts of a prompt of `tokens` after `depth` positions."""
    shape = shape_of(config, weight_format)
    chunks = -(-tokens // rates.chunk_tokens)
    passes = tokens + chunks * _touched(config, tokens / chunks)
    positions = tokens * depth + tokens * (tokens + 1) / 2
    return {
        "prefill_dense": _dense_macs(shape, rates, weight_format) * tokens / rates.mac_s,
        "prefill_experts": shape.expert_macs * passes / rates.mac_s,
        "prefill_rows": shape.rows * tokens / rates.mac_s,
        "prefill_attention": _attention_macs(config) * positions / rates.mac_s,
    }


def _dense_macs(shape: Shape, rates: Rates, weight_format: WeightFormat) -> float:
    """Multiply-accumulates of one token in what every token uses, without the output head."""
    passes = rates.projection_passes if weight_format == "int4" else 1
    return passes * shape.projection_macs + shape.other_macs


def _attention_macs(config: ModelConfig) -> float:
    """Products of one token with one position: scores and values of every query head."""
    return 2 * config.num_hidden_layers * config.num_attention_heads * config.head_dim


def _missed(read_again: float, rates: Rates) -> float:
    """Return the share of bytes that the last cache cannot have kept from the step before."""
    return max(0.0, 1 - rates.cache_bytes / read_again)


def _touched(config: ModelConfig, tokens: float) -> float:
    """Return the different experts that a chunk chooses, in multiples of one token's top-k.

    Expected under even routing, which balancing aims at (arXiv 2408.15664).
    """
    E, K = config.num_local_experts, config.num_experts_per_tok
    return E * (1 - (1 - K / E) ** tokens) / K if K else 0.0
