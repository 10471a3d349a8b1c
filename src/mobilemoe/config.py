"""What a model is: shapes and constants, named as the checkpoint's config.json names them.

Parameters, bytes, KV cache and FLOPs are methods here, read by the planner, the trainer,
the checkpoint writer and the benchmarks alike. How a model *runs* (threads, context,
activations) is not here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from mobilemoe.errors import MobileMoEError
from mobilemoe.weights import GROUP_SIZE, Weight, WeightFormat, weights

KvFormat = Literal["int8", "fp16", "bf16", "fp32"]
KV_BYTES: Mapping[KvFormat, int] = {"int8": 1, "fp16": 2, "bf16": 2, "fp32": 4}
KV_SCALE_BYTES = 4  # int8: a float32 for the key and for the value of each head and position

MODEL_TYPE = "mobilemoe"
LLAMA3_VOCAB_SIZE, LLAMA3_BOS = 128_256, 128_000  # the tokenizer of the release
MAX_LAYERS = 1024  # far above any model; keeps a damaged config.json from filling the memory

# Keys of config.json that must have exactly this value: another one is another model.
FIXED_KEYS: Mapping[str, Any] = {
    "model_type": MODEL_TYPE,
    "hidden_act": "silu",
    "use_qk_norm": True,
    "attn_temperature_tuning": False,
    "attention_bias": False,
    "norm_topk_prob": True,
}
# Keys that describe the file or the training run and do not change the forward pass.
INFORMATIVE_KEYS = frozenset(
    {
        "architectures",
        "torch_dtype",
        "dtype",
        "transformers_version",
        "auto_map",
        "use_cache",
        "initializer_range",
        "attention_dropout",
        "pad_token_id",
        "quantization",
    }
)


@dataclass(frozen=True)
class ModelConfig:
    """The shape of one MobileMoE or dense model.

    `num_local_experts == 0` is a dense model: every layer is a SwiGLU of width
    `intermediate_size_mlp`. In an MoE model `intermediate_size` is the width of a routed
    expert and `intermediate_size_mlp` that of the shared expert (0: none).

    Raises:
        MobileMoEError: naming the field, its value, what is allowed and a hint.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    intermediate_size_mlp: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    num_local_experts: int
    num_experts_per_tok: int
    interleave_moe_layer_step: int = 1
    max_position_embeddings: int = 8192
    rms_norm_eps: float = 1e-5
    rope_theta: float = 500_000.0
    rope_scaling_factor: float = 16.0
    rope_original_max_position_embeddings: int = 8192
    routed_scaling_factor: float = 2.5
    tie_word_embeddings: bool = True
    bos_token_id: int = 0
    eos_token_id: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        _check_config(self)

    @classmethod
    def preset(cls, name: str) -> ModelConfig:
        """Return a named shape; `mobilemoe.presets.PRESETS` lists them."""
        from mobilemoe.presets import preset  # presets are built from this class

        return preset(name)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelConfig:
        """Read the content of a released `config.json`; refuse what it does not know."""
        return _config_from_dict(values)

    def to_dict(self) -> dict[str, Any]:
        """Return the content of `config.json`, without the `quantization` block."""
        return _config_to_dict(self)

    def dense_twin(self) -> ModelConfig:
        """Return the dense model of (nearly) equal INT4 bytes; see `presets.dense_twin`."""
        from mobilemoe.presets import dense_twin

        return dense_twin(self)

    @property
    def is_moe(self) -> bool:
        """Whether any layer routes."""
        return any(self.is_moe_layer(layer) for layer in range(self.num_hidden_layers))

    def is_moe_layer(self, layer: int) -> bool:
        """Whether layer `layer` (from 0) is a mixture of experts."""
        return self.num_local_experts > 0 and (layer + 1) % self.interleave_moe_layer_step == 0

    def weights(self) -> tuple[Weight, ...]:
        """Every tensor of the checkpoint, in file order."""
        return tuple(weights(self))

    @property
    def total_params(self) -> int:
        """Elements of all tensors; a tied embedding is counted once."""
        return sum(weight.size for weight in weights(self))

    @property
    def active_params(self) -> int:
        """Elements that one token uses: top-k of the experts, everything else in full."""
        return sum(self._active_size(weight) for weight in weights(self))

    def _active_size(self, weight: Weight) -> int:
        if weight.kind == "expert":
            return weight.size // self.num_local_experts * self.num_experts_per_tok
        if weight.kind == "embedding" and not self.tie_word_embeddings:
            return self.hidden_size  # one row is looked up; the head is its own matrix
        return weight.size

    @property
    def flops_per_token(self) -> int:
        """Forward FLOPs per token without attention scores: 2 N_active."""
        return 2 * self.active_params

    def weight_bytes(self, weight_format: WeightFormat) -> int:
        """Bytes of all tensors on disk, scales included, file header not included."""
        _check_choice("weight_format", weight_format, ("bf16", "int4"))
        return sum(weight.bytes(weight_format) for weight in weights(self))

    def step_weight_bytes(self, weight_format: WeightFormat, experts: float | None = None) -> int:
        """Bytes of weights that one forward step with logits reads at least, each once.

        `experts`: different routed experts per layer, by default the top-k of a single token. A
        tied embedding is read in full, as the head; of an untied one a row.
        """
        _check_choice("weight_format", weight_format, ("bf16", "int4"))
        experts = self.num_experts_per_tok if experts is None else experts
        total = 0.0
        for weight in weights(self):
            share = 1.0
            if weight.kind == "expert":
                share = experts / self.num_local_experts
            elif weight.kind == "embedding" and not self.tie_word_embeddings:
                share = 1 / self.vocab_size
            total += share * weight.bytes(weight_format)
        return round(total)

    def macs_per_token(self, positions: float = 0, head: bool = True) -> int:
        """Multiply-accumulates of one token: matrices, and attention over `positions`.

        Without `head` as in the tokens of a prompt whose logits nobody reads.
        """
        multiplied = ("linear", "expert", "router")
        matrices = sum(
            self._active_size(weight)
            for weight in weights(self)
            if weight.kind in multiplied and weight.name != "lm_head.weight"
        )
        if head:
            matrices += self.vocab_size * self.hidden_size
        query = self.num_attention_heads * self.head_dim
        return matrices + round(2 * self.num_hidden_layers * query * positions)

    def training_flops_per_token(self, context: int) -> int:
        """FLOPs of forward and backward for one token of a row of `context` tokens.

        The backward pass multiplies twice for each product of the forward pass. A token attends
        to itself and what is before it, (context + 1) / 2 positions on average. What activation
        checkpointing computes again is not counted.
        """
        return 3 * 2 * self.macs_per_token((context + 1) / 2)

    def kv_bytes_per_token(self, kv_format: KvFormat) -> int:
        """Bytes of keys and values per token over all layers; int8 with its float32 scales."""
        _check_choice("kv_format", kv_format, tuple(KV_BYTES))
        rows = 2 * self.num_hidden_layers * self.num_key_value_heads
        scales = rows * KV_SCALE_BYTES if kv_format == "int8" else 0
        return rows * self.head_dim * KV_BYTES[kv_format] + scales


def _check_choice(field: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise MobileMoEError(f"{field} is {value!r}; allowed: {', '.join(allowed)}")


def _check_config(config: ModelConfig) -> None:
    for field in fields(config):
        _check_type(field.name, getattr(config, field.name))
    _check_positive(config)
    _check_experts(config)
    H, G = config.num_attention_heads, config.num_key_value_heads
    _require(H % G == 0, "num_attention_heads", H, f"a multiple of num_key_value_heads {G}")
    _require(config.head_dim % 2 == 0, "head_dim", config.head_dim, "an even number (RoPE pairs)")
    for name in ("hidden_size", "intermediate_size", "intermediate_size_mlp"):
        value = getattr(config, name)
        _require(value % GROUP_SIZE == 0, name, value, f"a multiple of {GROUP_SIZE} (INT4 groups)")
    width, layers = H * config.head_dim, config.num_hidden_layers
    allowed = f"num_attention_heads x head_dim a multiple of {GROUP_SIZE} (INT4 groups)"
    _require(width % GROUP_SIZE == 0, "head_dim", config.head_dim, allowed)
    _require(layers <= MAX_LAYERS, "num_hidden_layers", layers, f"1 to {MAX_LAYERS}")
    original, factor = config.rope_original_max_position_embeddings, config.rope_scaling_factor
    unscaled = factor != 1 or original == 8192
    _require(unscaled, "rope_original_max_position_embeddings", original, "8192 if unscaled")
    for token_id in (config.bos_token_id, *config.eos_token_id):
        inside = 0 <= token_id < config.vocab_size
        _require(inside, "bos_token_id/eos_token_id", token_id, f"0 to {config.vocab_size - 1}")


def _check_type(name: str, value: object) -> None:
    if name == "eos_token_id":
        valid = isinstance(value, tuple) and len(value) > 0 and all(type(v) is int for v in value)
        _require(valid, name, value, "a non-empty list of token ids")
    elif name == "tie_word_embeddings":
        _require(isinstance(value, bool), name, value, "true or false")
    elif name in ("rms_norm_eps", "rope_theta", "rope_scaling_factor", "routed_scaling_factor"):
        valid = type(value) in (int, float) and 0 < float(str(value)) < 1e9
        _require(valid, name, value, "a positive finite number")
    else:
        _require(type(value) is int, name, value, "an integer")


def _check_positive(config: ModelConfig) -> None:
    may_be_zero = {
        "intermediate_size",
        "intermediate_size_mlp",
        "num_local_experts",
        "num_experts_per_tok",
        "bos_token_id",
    }
    for field in fields(config):
        value = getattr(config, field.name)
        if type(value) is int:
            low = 0 if field.name in may_be_zero else 1
            _require(low <= value < 2**31, field.name, value, f"{low} to 2147483647")


def _check_experts(config: ModelConfig) -> None:
    E, K, F = config.num_local_experts, config.num_experts_per_tok, config.intermediate_size
    if E == 0:
        _require(K == 0, "num_experts_per_tok", K, "0 in a dense model (num_local_experts 0)")
        _require(F == 0, "intermediate_size", F, "0 in a dense model (num_local_experts 0)")
    else:
        _require(1 <= K <= E, "num_experts_per_tok", K, f"1 to num_local_experts {E}")
        _require(F > 0, "intermediate_size", F, "a positive multiple of 32 in an MoE model")
    step, layers = config.interleave_moe_layer_step, config.num_hidden_layers
    routes = E == 0 or step <= layers
    _require(routes, "interleave_moe_layer_step", step, f"1 to num_hidden_layers {layers}")
    has_dense_layer = E == 0 or step > 1
    width = config.intermediate_size_mlp
    if has_dense_layer:
        _require(width > 0, "intermediate_size_mlp", width, "a positive width for dense layers")


def _require(condition: bool, field: str, value: object, allowed: str) -> None:
    if not condition:
        raise MobileMoEError(
            f"config: {field} is {value!r}; allowed: {allowed}",
            hint=f"correct {field} in config.json or in the preset",
        )


_ROPE_KEYS = frozenset(
    {
        "rope_type",
        "factor",
        "original_max_position_embeddings",
        "low_freq_factor",
        "high_freq_factor",
    }
)
# Fields of ModelConfig that config.json stores under the same name.
_SAME_NAME_KEYS = tuple(
    field.name
    for field in fields(ModelConfig)
    if field.name
    not in (
        "rope_scaling_factor",
        "rope_original_max_position_embeddings",
        "eos_token_id",
    )
)
_LIST_KEYS = frozenset({"no_rope_layers", "layer_types", "rope_scaling", "eos_token_id"})


def _config_from_dict(values: Mapping[str, Any]) -> ModelConfig:
    known = set(_SAME_NAME_KEYS) | set(FIXED_KEYS) | INFORMATIVE_KEYS | _LIST_KEYS
    unknown = sorted(set(values) - known)
    if unknown:
        raise MobileMoEError(
            f"config.json: unknown key {', '.join(map(repr, unknown))}",
            hint="mobilemoe refuses what it cannot honour; remove the key if it has no effect",
        )
    for key, expected in FIXED_KEYS.items():
        if key == "model_type" or key in values:
            _require(values.get(key) == expected, key, values.get(key), repr(expected))
    arguments = {key: values[key] for key in _SAME_NAME_KEYS if key in values}
    _require_keys(arguments)
    arguments |= _rope_arguments(values.get("rope_scaling"))
    if arguments["vocab_size"] == LLAMA3_VOCAB_SIZE:
        arguments.setdefault("bos_token_id", LLAMA3_BOS)
    eos = _end_tokens(values)
    arguments["eos_token_id"] = tuple(eos) if isinstance(eos, list | tuple) else (eos,)
    config = ModelConfig(**arguments)
    _check_layer_lists(values, config.num_hidden_layers)
    return config


def _require_keys(arguments: Mapping[str, Any]) -> None:
    needed = [field for field in _SAME_NAME_KEYS[:10] if field not in arguments]
    if needed:
        raise MobileMoEError(
            f"config.json: missing key {', '.join(map(repr, needed))}",
            hint="is this the config.json of a MobileMoE checkpoint?",
        )


def _end_tokens(values: Mapping[str, Any]) -> Any:
    """Return `eos_token_id`; a guess would end texts at a word, or never."""
    if "eos_token_id" not in values:
        raise MobileMoEError(
            "config.json: missing key 'eos_token_id'",
            hint="copy the list from the checkpoint's generation_config.json",
        )
    return values["eos_token_id"]


def _rope_arguments(scaling: Any) -> dict[str, Any]:
    if scaling is None:
        return {"rope_scaling_factor": 1.0}
    valid = isinstance(scaling, Mapping) and set(scaling) == _ROPE_KEYS
    _require(valid, "rope_scaling", scaling, f"null or the keys {sorted(_ROPE_KEYS)}")
    _require(scaling["rope_type"] == "llama3", "rope_type", scaling["rope_type"], "'llama3'")
    for key in ("low_freq_factor", "high_freq_factor"):
        _require(scaling[key] == 1, key, scaling[key], "1.0 (a hard step)")
    return {
        "rope_scaling_factor": scaling["factor"],
        "rope_original_max_position_embeddings": scaling["original_max_position_embeddings"],
    }


def _check_layer_lists(values: Mapping[str, Any], layers: int) -> None:
    rope = values.get("no_rope_layers", [1] * layers)
    _require(rope == [1] * layers, "no_rope_layers", rope, f"{layers} times 1 (RoPE on)")
    types = values.get("layer_types", ["full_attention"] * layers)
    allowed = ["full_attention"] * layers
    _require(types == allowed, "layer_types", types, f"{layers} times 'full_attention'")


def _config_to_dict(config: ModelConfig) -> dict[str, Any]:
    values: dict[str, Any] = dict(FIXED_KEYS)
    values["architectures"] = ["MobileMoEForCausalLM"]
    values |= {key: getattr(config, key) for key in _SAME_NAME_KEYS}
    values["rope_scaling"] = _rope_scaling(config)
    values["no_rope_layers"] = [1] * config.num_hidden_layers
    values["layer_types"] = ["full_attention"] * config.num_hidden_layers
    values["torch_dtype"] = "bfloat16"
    values["eos_token_id"] = list(config.eos_token_id)
    return values


def _rope_scaling(config: ModelConfig) -> dict[str, Any] | None:
    if config.rope_scaling_factor == 1.0:
        return None
    return {
        "rope_type": "llama3",
        "factor": config.rope_scaling_factor,
        "original_max_position_embeddings": config.rope_original_max_position_embeddings,
        "low_freq_factor": 1.0,
        "high_freq_factor": 1.0,
    }
