"""How much memory the native engine takes for itself, beside the mapped weights.

The only Python code that knows the format of the engine's KV cache and the sizes of its buffers;
a test compares it with the memory that a session really takes. The buffers mirror the
constructors of Session, ModelParts, Attention, FeedForward, ActivationBuffer and ScaledBuffer in
`native/`.

T tokens computed at a time, D hidden, F routed expert width, S shared width, E experts, K top-k.
"""

from __future__ import annotations

from mobilemoe.config import KvFormat, ModelConfig
from mobilemoe.weights import GROUP_SIZE, WeightFormat

CHUNK = 512  # tokens computed at a time
FEW_TOKENS, UNIT_SLOTS = 4, 60  # of FeedForward
SCALE_PADDING = 8  # scales and sums of a row are padded to a multiple of this
KV_POSITIONS = 64  # a cache has room for a multiple of so many
FLOAT, POINTER = 4, 8

COPIED_KINDS = frozenset({"norm", "router", "expert_bias"})  # kept as float32 beside the file


def default_kv_format(int8: bool) -> KvFormat:
    """Return the format of the KV cache that goes with int8 activations, or with float32."""
    return "int8" if int8 else "fp32"


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
    kv = kv or default_kv_format(int8)
    cache = kv_cache_bytes(config, context, kv)
    return cache + scratch_bytes(config, context, threads, int8, kv)


def kv_cache_bytes(config: ModelConfig, context: int, kv: KvFormat) -> int:
    """Return the bytes of a full KV cache, which has room for a multiple of 64 positions."""
    positions = -(-context // KV_POSITIONS) * KV_POSITIONS
    return positions * config.kv_bytes_per_token(kv)


def scratch_bytes(
    config: ModelConfig, context: int, threads: int, int8: bool, kv: KvFormat | None = None
) -> int:
    """Return the bytes of the buffers in which one session computes; `context` is one append."""
    kv = kv or default_kv_format(int8)
    T, D = min(CHUNK, context), config.hidden_size
    stream = 3 * FLOAT * D  # the residual stream, what is added to it, and its norm
    head = _row(D) if int8 else 0
    per_token = stream + head + _attention_row(config, int8, kv) + _feed_forward_row(config, int8)
    per_thread = _expert_bytes(config, T, int8) + _score_bytes(config, context, kv)
    fixed = FLOAT * config.vocab_size + _few_tokens_bytes(config, T, int8)
    return T * per_token + threads * per_thread + fixed + context * _routing_bytes(config)


def _attention_row(config: ModelConfig, int8: bool, kv: KvFormat) -> int:
    """Bytes per token of Attention; all four projections read two int8 terms."""
    D, query = config.hidden_size, config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    terms = 2 if int8 else 1
    floats = config.head_dim + terms * (query + 2 * keys + D) + query
    inputs = 2 * (_row(D) + _row(query)) + FLOAT * (D + query) if int8 else 0
    queries = 2 * query + FLOAT * config.num_attention_heads  # integers in two terms
    return FLOAT * floats + inputs + (queries if kv == "int8" else 0)


def _feed_forward_row(config: ModelConfig, int8: bool) -> int:
    """Bytes per token of FeedForward: router, choices, experts' outputs, shared expert."""
    D, S = config.hidden_size, config.intermediate_size_mlp
    E, K = config.num_local_experts, config.num_experts_per_tok
    floats = 2 * E + 4 * K + K * D + 2 * S + D
    inputs = _row(D) + _row(S) + FLOAT * _scaled(D) if int8 else POINTER * K
    return FLOAT * floats + inputs


def _few_tokens_bytes(config: ModelConfig, T: int, int8: bool) -> int:
    """Bytes for the inside of the experts of few tokens, shared by the threads."""
    F = config.intermediate_size
    slots = min(T, FEW_TOKENS) * config.num_experts_per_tok
    return slots * FLOAT * (2 * F + (_scaled(F) if int8 else 0))


def _expert_bytes(config: ModelConfig, T: int, int8: bool) -> int:
    """Bytes per thread for the inside of an expert."""
    F = config.intermediate_size
    if config.num_local_experts == 0 or T <= FEW_TOKENS:
        return 0
    return UNIT_SLOTS * FLOAT * (2 * F + (_scaled(F) if int8 else 0))


def _score_bytes(config: ModelConfig, context: int, kv: KvFormat) -> int:
    """Bytes per thread for scores and widened keys; an INT8 cache needs none."""
    if kv == "int8":
        return 0
    heads = config.num_attention_heads // config.num_key_value_heads
    return FLOAT * (heads * context + (KV_POSITIONS + 1) * config.head_dim)


def _routing_bytes(config: ModelConfig) -> int:
    """Bytes per token of an append for the chosen experts of all layers, which are kept."""
    layers = sum(config.is_moe_layer(layer) for layer in range(config.num_hidden_layers))
    return layers * config.num_experts_per_tok * FLOAT


def _scaled(width: int) -> int:
    """Return the floats of one row of a ScaledBuffer: its values and their scales."""
    return width + width // GROUP_SIZE


def _row(width: int) -> int:
    """Return the bytes of one row as int8 values with a float32 scale and an int32 sum."""
    blocks = -(-width // GROUP_SIZE)
    return width + 8 * (-(-blocks // SCALE_PADDING) * SCALE_PADDING)
