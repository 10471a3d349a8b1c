"""How much memory the native engine takes for itself, beside the mapped weights.

The only Python code that knows the format of the engine's KV cache and the sizes of its buffers;
a test compares it with the memory that a session really takes. The buffers mirror the
constructors of Session, ModelParts, Attention, FeedForward and ActivationBuffer in `native/`.

T tokens computed at a time, D hidden, F routed expert width, S shared width, E experts, K top-k.
"""

from __future__ import annotations

from mobilemoe.config import KvFormat, ModelConfig
from mobilemoe.weights import GROUP_SIZE, WeightFormat

CHUNK = 256  # tokens computed at a time
SCALE_PADDING = 8  # scales and sums of a row are padded to a multiple of this
KV_POSITIONS = 64  # an INT8 cache has room for a multiple of so many
KV_SCALE_BYTES = 4  # float32, for the key and for the value of each head and position

COPIED_KINDS = frozenset({"norm", "router", "expert_bias"})  # kept as float32 beside the file


def default_kv_format(int8: bool) -> KvFormat:
    """Return the format of the KV cache that goes with int8 activations, or with float32."""
    return "fp32"


def model_bytes(config: ModelConfig) -> int:
    """Return the bytes that a loaded model copies out of its file, once for all sessions."""
    return sum(4 * weight.size for weight in config.weights() if weight.kind in COPIED_KINDS)


def expert_bytes(config: ModelConfig, weight_format: WeightFormat) -> int:
    """Return the bytes of all routed experts in the file."""
    weights = (weight for weight in config.weights() if weight.kind == "expert")
    return sum(weight.bytes(weight_format) for weight in weights)


def session_bytes(
    config: ModelConfig,
    context: int,
    threads: int = 1,
    int8: bool = True,
    kv: KvFormat | None = None,
) -> int:
    """Return the bytes of one session: its KV cache for `context` tokens and its buffers.

    The KV cache is paid for as the context fills; this is the sum when it is full. `kv`: by
    default what goes with the activations.
    """
    cache = kv_cache_bytes(config, context, kv or default_kv_format(int8))
    return cache + scratch_bytes(config, context, threads, int8)


def kv_cache_bytes(config: ModelConfig, context: int, kv: KvFormat) -> int:
    """Return the bytes of a full KV cache, the scales of INT8 included."""
    if kv != "int8":
        return context * config.kv_bytes_per_token(kv)
    positions = -(-context // KV_POSITIONS) * KV_POSITIONS
    rows = 2 * config.num_hidden_layers * config.num_key_value_heads
    return positions * (config.kv_bytes_per_token(kv) + rows * KV_SCALE_BYTES)


def scratch_bytes(config: ModelConfig, context: int, threads: int, int8: bool) -> int:
    """Return the bytes of the buffers in which one session computes."""
    T, D, S = min(CHUNK, context), config.hidden_size, config.intermediate_size_mlp
    query = config.num_attention_heads * config.head_dim
    kv = config.num_key_value_heads * config.head_dim
    terms = 2 if int8 else 1  # queries, keys and values read two-term activations
    attention_floats = config.head_dim + terms * (query + 2 * kv) + query
    floats = 3 * D + attention_floats + _feed_forward_floats(config)
    quantized = (terms * _row(D) + 4 * D + _row(query) + 2 * _row(D) + _row(S)) if int8 else 0
    return T * (4 * floats + quantized) + 4 * threads * context + 4 * config.vocab_size


def _feed_forward_floats(config: ModelConfig) -> int:
    """Router logits and scores, choices, outputs of experts and shared expert, per token."""
    D, F, S = config.hidden_size, config.intermediate_size, config.intermediate_size_mlp
    E, K = config.num_local_experts, config.num_experts_per_tok
    return 2 * E + 2 * K + K * (2 * F + D) + 2 * S + D


def _row(width: int) -> int:
    """Return the bytes of one row as int8 values with a float32 scale and an int32 sum."""
    blocks = -(-width // GROUP_SIZE)
    return width + 8 * (-(-blocks // SCALE_PADDING) * SCALE_PADDING)
