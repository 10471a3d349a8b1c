"""What a forward pass keeps for the backward pass, tensor by tensor, in bytes per token.

The list follows the operations of `model/`; a test holds it against what autograd saves. Values
are of the compute type (`c` bytes) or float32 (4 bytes: norms and the router compute in it in
every precision). What has no token axis (RoPE tables) is left out.

D hidden, F routed expert width, S shared (or dense) width, E experts, K top-k, H query heads,
G KV heads, d head dim.
"""

from __future__ import annotations

from collections.abc import Mapping

from mobilemoe.config import ModelConfig
from mobilemoe.plan.cluster.layout import WIDE_BYTES, Layout
from mobilemoe.plan.cluster.quantity import Quantity
from mobilemoe.recipe import Stage

INT64 = 8
# Of the fullest rank of an EP group, when nothing is dropped.
IMBALANCE = Quantity(
    "expert load of the fullest rank",
    1.25,
    "of the mean",
    "assumed",
    "the bias update keeps experts near their mean load; a quarter more is allowed for",
)
ACTIVATION_PARTS = ("residual", "attention", "router", "experts", "shared expert", "dense FFN")


def expert_rows_per_token(config: ModelConfig, layout: Layout, capacity: float | None) -> float:
    """Return the choices that a GPU computes per token of its own, at worst.

    Alone, a GPU computes each of its choices once, whatever the capacity. In an EP group its
    experts also serve the other ranks' tokens: up to the capacity, or, dropless, as many as
    their popularity brings.
    """
    K = config.num_experts_per_tok
    if layout.expert_parallel == 1:
        return float(K)
    return K * (IMBALANCE.value if capacity is None else max(1.0, capacity))


def layer_bytes_per_token(
    config: ModelConfig, layer: int, layout: Layout, capacity: float | None = None
) -> dict[str, float]:
    """Return the bytes that layer `layer` keeps per token, by part of `ACTIVATION_PARTS`."""
    c = layout.compute_bytes
    parts = {"residual": _residual(config, c), "attention": _attention(config, c)}
    S = config.intermediate_size_mlp
    if config.is_moe_layer(layer):
        rows = expert_rows_per_token(config, layout, capacity)
        parts["router"] = _router(config, c)
        parts["experts"] = _experts(config, c, rows)
        if S:
            parts["shared expert"] = _swiglu(S, c)
    else:
        parts["dense FFN"] = _swiglu(S, c)
    return parts


def _residual(config: ModelConfig, c: int) -> float:
    """Two norms, and what the second hands to the feed-forward part."""
    return 2 * _norm(config, c) + config.hidden_size * c


def _norm(config: ModelConfig, c: int) -> float:
    """Keep the input in float32, its reciprocal root, and the normalised values."""
    return config.hidden_size * (WIDE_BYTES + c) + WIDE_BYTES


def _attention(config: ModelConfig, c: int) -> float:
    D, d = config.hidden_size, config.head_dim
    H, G = config.num_attention_heads, config.num_key_value_heads
    inputs = (D + H * d) * c  # of q, k, v together; of the output projection
    qkv_o = 4 * H * d * c  # as the kernel takes them, keys and values repeated, and its result
    rotated = (H + G) * d * WIDE_BYTES  # queries and keys before their norm
    return inputs + qkv_o + rotated + (2 * H + G) * WIDE_BYTES  # roots; the softmax's sums


def _router(config: ModelConfig, c: int) -> float:
    """Its float32 input, scores, logits of the z-loss, ids and order, weights and their sums."""
    D, E, K = config.hidden_size, config.num_local_experts, config.num_experts_per_tok
    wide_input = D if c < WIDE_BYTES else 0
    return (wide_input + 2 * E + 2 * K + 2) * WIDE_BYTES + (E + 2 * K) * INT64


def _experts(config: ModelConfig, c: int, rows: float) -> float:
    """Keep the rows in and out of the experts, and what is inside them."""
    D, F, K = config.hidden_size, config.intermediate_size, config.num_experts_per_tok
    inside = rows * (D + 4 * F) * c  # rows, gate and up, silu(gate), its product with up
    combined = (rows * D + K * D) * c  # results by expert, and by token to be weighted
    return inside + combined


def _swiglu(width: int, c: int) -> float:
    """Keep gate, up, silu(gate) and the product; the input is counted with the residual."""
    return 4 * width * c


def final_norm_bytes_per_token(config: ModelConfig, layout: Layout) -> float:
    """Return what the norm below the head keeps."""
    return _norm(config, layout.compute_bytes)


def activation_bytes(config: ModelConfig, layout: Layout, stage: Stage) -> dict[str, int]:
    """Return what one micro-batch of `stage` keeps on one GPU, by part of `ACTIVATION_PARTS`.

    With activation checkpointing: every layer's input, and one layer in full while it is
    computed again.
    """
    layers = range(config.num_hidden_layers)
    per_layer = [
        layer_bytes_per_token(config, layer, layout, stage.capacity_factor) for layer in layers
    ]
    if layout.activation_checkpointing:
        fullest = max(per_layer, key=lambda parts: sum(parts.values()))
        inputs = config.num_hidden_layers * config.hidden_size * layout.compute_bytes
        per_token: Mapping[str, float] = fullest | {"residual": fullest["residual"] + inputs}
    else:
        names = [part for part in ACTIVATION_PARTS if any(part in layer for layer in per_layer)]
        per_token = {part: sum(layer.get(part, 0.0) for layer in per_layer) for part in names}
    tokens = layout.micro_tokens(stage)
    totals = {part: round(tokens * size) for part, size in per_token.items()}
    totals["residual"] += round(tokens * final_norm_bytes_per_token(config, layout))
    return totals
