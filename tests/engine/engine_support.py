"""Small checkpoints of every shape the engine runs, and a float64 twin of its forward pass.

T tokens, D hidden, F routed expert width, E experts, K top-k, H query heads, G kv heads,
d head dim.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from mobilemoe.checkpoint import Checkpoint, open_checkpoint, write_checkpoint
from mobilemoe.config import ModelConfig
from mobilemoe.engine.selftest import runnable_kernels
from mobilemoe.weights import WeightFormat

DATA = Path(__file__).parents[1] / "data"
INT4_FOLDERS = [DATA / "tiny-int4", DATA / "tiny-int4-hd64"]
BF16_FOLDER = DATA / "tiny-bf16"

SMALL = ModelConfig(
    vocab_size=37,
    hidden_size=96,
    intermediate_size=32,
    intermediate_size_mlp=64,
    num_hidden_layers=3,
    num_attention_heads=6,
    num_key_value_heads=2,
    head_dim=16,
    num_local_experts=7,
    num_experts_per_tok=3,
    max_position_embeddings=640,
    rope_theta=10_000.0,
    rope_scaling_factor=1.0,
    eos_token_id=(36,),
)
SHAPES = {
    "moe": SMALL,
    "dense": replace(SMALL, num_local_experts=0, num_experts_per_tok=0, intermediate_size=0),
    "interleaved": replace(SMALL, interleave_moe_layer_step=2),
    "no-shared-expert": replace(SMALL, intermediate_size_mlp=0),
    "scaled-rope": replace(
        SMALL, rope_scaling_factor=8.0, rope_original_max_position_embeddings=64
    ),
}
# How a checkpoint can be run: weight format and activations.
MODES = [("int4", "fp32"), ("int4", "int8"), ("bf16", "fp32")]

KERNELS = runnable_kernels()


def write_random(
    folder: Path, config: ModelConfig, weight_format: WeightFormat = "int4", seed: int = 0
) -> Checkpoint:
    rng = np.random.default_rng(seed)
    shapes = {weight.name: weight for weight in config.weights()}

    def read(name: str):
        weight = shapes[name]
        noise = rng.standard_normal(weight.shape).astype(np.float32)
        if weight.kind == "norm":
            return 1 + 0.1 * noise
        if weight.kind == "expert_bias":
            return 0.1 * noise
        fan_in = weight.shape[1] if weight.kind in ("expert", "linear", "router") else 1
        return noise / np.float32(np.sqrt(fan_in))

    return write_checkpoint(folder, config, weight_format, read)


def naive_logits(folder: Path, ids: list[int]) -> np.ndarray:
    """Logits [T, V] in float64, one token and one expert at a time."""
    checkpoint = open_checkpoint(folder)
    w = {weight.name: x.astype(np.float64) for weight, x in checkpoint.read_weights()}
    config, embedding = checkpoint.config, w["model.embed_tokens.weight"]
    x_TD = embedding[ids]
    for i in range(config.num_hidden_layers):
        layer = f"model.layers.{i}."
        h_TD = rms(x_TD, config) * w[layer + "input_layernorm.weight"]
        x_TD = x_TD + attention(h_TD, w, layer + "self_attn.", config)
        h_TD = rms(x_TD, config) * w[layer + "post_attention_layernorm.weight"]
        moe = config.is_moe_layer(i)
        ffn = moe_layer if moe else lambda h_TD, w, name, _: swiglu(h_TD, w, name)
        x_TD = x_TD + ffn(h_TD, w, layer + "feed_forward.", config)
    head = embedding if config.tie_word_embeddings else w["lm_head.weight"]
    return (rms(x_TD, config) * w["model.norm.weight"]) @ head.T


def rms(x, config):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + config.rms_norm_eps)


def silu(x):
    return x / (1 + np.exp(-x))


def swiglu(h_TD, w, name):
    gate, up, down = (w[f"{name}{part}_proj.weight"] for part in ("gate", "up", "down"))
    return (silu(h_TD @ gate.T) * (h_TD @ up.T)) @ down.T


def rotate(x_THd, config):
    d = config.head_dim
    frequency = config.rope_theta ** (-np.arange(0, d, 2) / d)
    long = 2 * np.pi / frequency > config.rope_original_max_position_embeddings
    frequency = np.where(long, frequency / config.rope_scaling_factor, frequency)
    turn = np.exp(1j * np.arange(len(x_THd))[:, None, None] * frequency)
    z = (x_THd[..., ::2] + 1j * x_THd[..., 1::2]) * turn
    return rms(np.stack([z.real, z.imag], -1).reshape(x_THd.shape), config)


def attention(h_TD, w, name, config):
    T, d, H, G = len(h_TD), config.head_dim, config.num_attention_heads, config.num_key_value_heads
    q_THd = rotate((h_TD @ w[name + "q_proj.weight"].T).reshape(T, H, d), config)
    k_TGd = rotate((h_TD @ w[name + "k_proj.weight"].T).reshape(T, G, d), config)
    v_TGd = (h_TD @ w[name + "v_proj.weight"].T).reshape(T, G, d)
    out_THd = np.empty((T, H, d))
    for h in range(H):
        g = h // (H // G)
        scores_TT = q_THd[:, h] @ k_TGd[:, g].T / np.sqrt(d)
        scores_TT[np.triu_indices(T, 1)] = -np.inf
        p_TT = np.exp(scores_TT - scores_TT.max(-1, keepdims=True))
        out_THd[:, h] = p_TT / p_TT.sum(-1, keepdims=True) @ v_TGd[:, g]
    return out_THd.reshape(T, H * d) @ w[name + "o_proj.weight"].T


def moe_layer(h_TD, w, name, config):
    F, K = config.intermediate_size, config.num_experts_per_tok
    scores_TE = 1 / (1 + np.exp(-h_TD @ w[name + "router.weight"].T))
    order_TE = np.argsort(-(scores_TE + w[name + "expert_bias"]), axis=-1, kind="stable")
    y_TD = np.zeros_like(h_TD)
    for t, ids_K in enumerate(order_TE[:, :K]):
        total = scores_TE[t, ids_K].sum()
        for e in ids_K:
            gate_up = h_TD[t] @ w[name + "experts.gate_up_proj"][e]
            y_D = (silu(gate_up[:F]) * gate_up[F:]) @ w[name + "experts.down_proj"][e]
            y_TD[t] += scores_TE[t, e] / total * config.routed_scaling_factor * y_D
    if config.intermediate_size_mlp:
        y_TD += swiglu(h_TD, w, name + "shared_expert.")
    return y_TD
