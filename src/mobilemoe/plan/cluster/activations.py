"""What a forward pass keeps for the backward pass, tensor by tensor, in bytes per token.

The list follows the operations of `model/`; a test holds it against what autograd saves. Products
read and give the compute type (`c` bytes); the residual stream, norms and the router are float32
in every precision. What has no token axis (RoPE tables) is left out, and so is what
`torch.compile` saves by fusing: with it, this is more than is kept.

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
    config: ModelConfig, layer: int, layout: Layout, stage: Stage
) -> dict[str, float]:
    """Return the bytes that layer `layer` keeps per token, by part of `ACTIVATION_PARTS`."""
    c, D, S = layout.compute_bytes, config.hidden_size, config.intermediate_size_mlp
    parts = {"residual": 2 * _norm(config), "attention": _attention(config, c)}
    if config.is_moe_layer(layer):
        parts["router"] = _router(config)
        parts["experts"] = _experts(config, layout, stage)
        if S:
            parts["shared expert"] = _swiglu(S, c) + (_read_by(D, 2, c) if c < WIDE_BYTES else 0)
    else:
        parts["dense FFN"] = _swiglu(S, c) + _read_by(D, 2, c)
    return parts


def _norm(config: ModelConfig) -> float:
    """Keep the input, its reciprocal root, and the normalised values; the residual is float32."""
    return (2 * config.hidden_size + 1) * WIDE_BYTES


def _read_by(width: int, products: int, c: int) -> float:
    """Keep what `products` products read: float32 as it is, or a cast for each of them."""
    return width * (WIDE_BYTES if c == WIDE_BYTES else products * c)


def _attention(config: ModelConfig, c: int) -> float:
    D, d = config.hidden_size, config.head_dim
    H, G = config.num_attention_heads, config.num_key_value_heads
    inputs = _read_by(D, 3, c) + H * d * c  # of q, k and v; of the output projection
    qkv_o = 4 * H * d * c  # as the kernel takes them, keys and values repeated, and its result
    rotated = (H + G) * d * WIDE_BYTES  # queries and keys before their norm
    return inputs + qkv_o + rotated + (2 * H + G) * WIDE_BYTES  # roots; the softmax's sums


def _router(config: ModelConfig) -> float:
    """Its float32 input, scores, logits of the z-loss, ids and order, weights and their sums."""
    D, E, K = config.hidden_size, config.num_local_experts, config.num_experts_per_tok
    return (D + 2 * E + 2 * K + 2) * WIDE_BYTES + (E + 2 * K) * INT64


def _experts(config: ModelConfig, layout: Layout, stage: Stage) -> float:
    """Keep the rows that go in, gate and up, silu(gate), its product with up, and the results.

    Results are kept where they are put back in order: by token to be weighted, by choice, and
    in an EP group also by expert. Fake int8 activations are computed in float32.
    """
    D, F, K = config.hidden_size, config.intermediate_size, config.num_experts_per_tok
    rows = expert_rows_per_token(config, layout, stage.capacity_factor)
    returned = rows * D if layout.expert_parallel > 1 else 0.0
    width = WIDE_BYTES if stage.int8_activations else layout.compute_bytes
    return (rows * (D + 4 * F) + returned + 2 * K * D) * width


def _swiglu(width: int, c: int) -> float:
    """Keep gate, up, silu(gate) and the product."""
    return 4 * width * c


def final_norm_bytes_per_token(config: ModelConfig) -> float:
    """Return what the norm below the head keeps."""
    return _norm(config)


def activation_bytes(config: ModelConfig, layout: Layout, stage: Stage) -> dict[str, int]:
    """Return what one micro-batch of `stage` keeps on one GPU, by part of `ACTIVATION_PARTS`.

    With activation checkpointing: every layer's input, and one layer in full while it is
    computed again.
    """
    layers = range(config.num_hidden_layers)
    per_layer = [layer_bytes_per_token(config, layer, layout, stage) for layer in layers]
    if layout.activation_checkpointing:
        fullest = max(per_layer, key=lambda parts: sum(parts.values()))
        inputs = config.num_hidden_layers * config.hidden_size * WIDE_BYTES
        per_token: Mapping[str, float] = fullest | {"residual": fullest["residual"] + inputs}
    else:
        names = [part for part in ACTIVATION_PARTS if any(part in layer for layer in per_layer)]
        per_token = {part: sum(layer.get(part, 0.0) for layer in per_layer) for part in names}
    tokens = layout.micro_tokens(stage)
    totals = {part: round(tokens * size) for part, size in per_token.items()}
    totals["residual"] += round(tokens * final_norm_bytes_per_token(config))
    return totals
