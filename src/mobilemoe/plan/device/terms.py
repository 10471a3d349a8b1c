"""The work of one step, term by term: time is the sum of cost factor times amount.

A decode step reads every active weight once, multiplies it with one token, and attends to the
cache. A prompt goes through in chunks: each chunk reads the weights of all experts that any of
its tokens chose, multiplies, and attends to everything before it. Amounts of matrix work are in
seconds at the device's plain rates; the others are counts, so that their cost is in seconds.
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
    "decode_steps": SECONDS,  # per token
    "prefill_dense": CEILING,  # multiplying with the weights that every token uses
    "prefill_experts": CEILING,  # multiplying with the chosen experts
    "prefill_read": CEILING,  # reading, once per chunk, all weights that it touches
    "prefill_rows": SECONDS,  # per token, layer and hidden unit: norms, quantisation, combining
    "prefill_layers": SECONDS,  # per chunk and layer
}
ATTENTION_TERMS: Mapping[str, str] = {
    "decode_attention": CEILING,  # products of one token's heads with the cache
    "decode_kv": CEILING,  # reading the cache
    "prefill_attention": CEILING,  # products of a chunk's heads with the cache
}


@dataclass(frozen=True)
class Rates:
    """Plain rates of one thread count, and what else of a device changes the amounts."""

    read_bytes_s: float
    mac_s: float
    cache_bytes: float
    chunk_tokens: int


@dataclass(frozen=True)
class Shape:
    """Sums over the tensors of one model: bytes and multiply-accumulates per token.

    `experts` counts the chosen ones of a single token; `head` is part of neither `dense_macs`.
    """

    total_bytes: float
    dense_bytes: float
    expert_bytes: float
    head_bytes: float
    dense_macs: float
    expert_macs: float
    head_macs: float


@lru_cache(maxsize=4096)
def shape_of(config: ModelConfig, weight_format: WeightFormat = "int4") -> Shape:
    """Return the sums for `config`."""
    K = config.num_experts_per_tok
    step = config.step_weight_bytes(weight_format)
    without = config.step_weight_bytes(weight_format, 0) if K else step
    head = config.vocab_size * config.hidden_size
    experts = sum(w.size for w in config.weights() if w.kind == "expert")
    expert_macs = experts // config.num_local_experts * K if K else 0
    return Shape(
        total_bytes=config.weight_bytes(weight_format),
        dense_bytes=without,
        expert_bytes=step - without,
        head_bytes=head * (9 / 16 if weight_format == "int4" else 2),
        dense_macs=config.macs_per_token(head=False) - expert_macs,
        expert_macs=expert_macs,
        head_macs=head,
    )


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
    macs = shape.dense_macs + shape.expert_macs + shape.head_macs
    return {
        "decode_dense": missed * shape.dense_bytes / rates.read_bytes_s,
        "decode_experts": missed * shape.expert_bytes / rates.read_bytes_s,
        "decode_macs": macs / rates.mac_s,
        "decode_layers": config.num_hidden_layers,
        "decode_steps": 1.0,
        "decode_attention": _attention_macs(config) * (depth + 1) / rates.mac_s,
        "decode_kv": kv_bytes / rates.read_bytes_s,
    }


def prefill_terms(
    config: ModelConfig,
    tokens: int,
    depth: float,
    rates: Rates,
    weight_format: WeightFormat = "int4",
    kv_format: KvFormat = "int8",
) -> dict[str, float]:
    """Return the amounts of a prompt of `tokens` after `depth` positions, logits of its last."""
    shape = shape_of(config, weight_format)
    chunks = -(-tokens // rates.chunk_tokens)
    kv_bytes = (depth + tokens) * config.kv_bytes_per_token(kv_format)
    missed = _missed(shape.total_bytes + kv_bytes, rates)
    touched = _touched(config, tokens / chunks)
    body = shape.dense_bytes - shape.head_bytes + touched * shape.expert_bytes
    positions = tokens * depth + tokens * (tokens + 1) / 2
    return {
        "prefill_dense": shape.dense_macs * tokens / rates.mac_s,
        "prefill_experts": shape.expert_macs * tokens / rates.mac_s,
        "prefill_read": missed * (chunks * body + shape.head_bytes) / rates.read_bytes_s,
        "prefill_rows": config.num_hidden_layers * config.hidden_size * tokens,
        "prefill_layers": chunks * config.num_hidden_layers,
        "prefill_attention": _attention_macs(config) * positions / rates.mac_s,
    }


def _attention_macs(config: ModelConfig) -> float:
    """Products of one token with one position: scores and values of every query head."""
    return 2 * config.num_hidden_layers * config.num_attention_heads * config.head_dim


def _missed(read_again: float, rates: Rates) -> float:
    """Return the share of bytes that the last cache cannot have kept from the step before."""
    return max(0.0, 1 - rates.cache_bytes / read_again)


def _touched(config: ModelConfig, tokens: float) -> float:
    """Return how many times the top-k experts a chunk reads: the different ones it chose.

    Expected under even routing, which balancing aims at (arXiv 2408.15664).
    """
    E, K = config.num_local_experts, config.num_experts_per_tok
    return E * (1 - (1 - K / E) ** tokens) / K if K else 0.0
