"""The forward pass in float64, straight from the stored tensors: the column called "file".

Written from the formulas alone, without torch and without the engine, and one layer, one expert
and some rows of the head at a time, so that its memory does not grow with the model.

T tokens, N positions (also T), D hidden, F routed expert width, S slots (tokens of one expert),
E experts, K top-k, H query heads, G kv heads, d head dim, p = d/2 pairs, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mobilemoe.config import ModelConfig
from mobilemoe.verify.columns import LayerOutput
from mobilemoe.verify.files import Float64, Piece, Weights, row_chunks
from mobilemoe.verify.trace import (
    AttentionTrace,
    Product,
    RouterTrace,
    SwiGluTrace,
    Watcher,
)

# What attention's projections read is two int8 rows in the engine's fast mode (native/attention.h).
ATTENTION_TERMS = 2


class Reference:
    """The model of `weights` over `tokens` positions, part by part.

    Each part takes the residual stream [T, D] and returns what it adds to it.
    """

    def __init__(self, weights: Weights, tokens: int, watch: Watcher | None = None) -> None:
        self.weights = weights
        self.config = weights.config
        self.watch = watch
        self.turn_Tp = rotations(weights.config, tokens)

    def embed(self, ids_T: Sequence[int]) -> Float64:
        """Return the rows [T, D] of the embedding."""
        name = "model.embed_tokens.weight"
        return np.concatenate([self.weights.piece(name, i, i + 1).values for i in ids_T])

    def attention(self, layer: int, x_TD: Float64) -> Float64:
        """Return what `layer` adds to x: the attention of input_norm(x)."""
        config, prefix = self.config, f"model.layers.{layer}"
        h_TD = self._norm(x_TD, f"{prefix}.input_layernorm.weight")
        q = self._linear(h_TD, f"{prefix}.self_attn.q_proj.weight", ATTENTION_TERMS)
        k = self._linear(h_TD, f"{prefix}.self_attn.k_proj.weight", ATTENTION_TERMS)
        v = self._linear(h_TD, f"{prefix}.self_attn.v_proj.weight", ATTENTION_TERMS)
        q_HTd, q_rms_HT = self._rotated_heads(q.y_TO)
        k_GTd, k_rms_GT = self._rotated_heads(k.y_TO)
        v_GTd = heads(v.y_TO, config.head_dim)
        repeat = config.num_attention_heads // config.num_key_value_heads
        scores_HTN = causal_scores(q_HTd, np.repeat(k_GTd, repeat, axis=0))
        p_HTN = softmax(scores_HTN)
        mixed_HTd = p_HTN @ np.repeat(v_GTd, repeat, axis=0)
        mixed_TI = mixed_HTd.transpose(1, 0, 2).reshape(len(x_TD), -1)
        o = self._linear(mixed_TI, f"{prefix}.self_attn.o_proj.weight", ATTENTION_TERMS)
        if self.watch is not None:
            scores = (q_rms_HT, k_rms_GT, scores_HTN, p_HTN)
            parts = (q, k, v, o, self.turn_Tp, q_HTd, k_GTd, v_GTd)
            self.watch.attention(AttentionTrace(*parts, *scores))
        return o.y_TO

    def feed_forward(self, layer: int, x_TD: Float64) -> LayerOutput:
        """Return what `layer` adds to x: the feed-forward of post_norm(x); and its routing."""
        prefix = f"model.layers.{layer}"
        h_TD = self._norm(x_TD, f"{prefix}.post_attention_layernorm.weight")
        prefix = f"{prefix}.feed_forward"
        if not self.config.is_moe_layer(layer):
            return LayerOutput(self._swiglu(h_TD, prefix))
        routing = self._route(h_TD, prefix)
        y_TD = np.zeros_like(h_TD)
        for expert in np.unique(routing.topk_ids_TK):
            self._add_expert(int(expert), routing, prefix, y_TD)
        if self.config.intermediate_size_mlp:
            y_TD += self._swiglu(h_TD, f"{prefix}.shared_expert")
        return LayerOutput(y_TD, routing.logits.y_TO, routing.topk_ids_TK)

    def head(self, x_TD: Float64) -> Float64:
        """Return the logits [T, V]."""
        name = "model.embed_tokens.weight" if self.config.tie_word_embeddings else "lm_head.weight"
        h_TD = self._norm(x_TD, "model.norm.weight")
        V, D = self.config.vocab_size, self.config.hidden_size
        logits_TV = np.empty((len(x_TD), V))
        for start, stop in row_chunks(V, D):
            piece = self.weights.piece(name, start, stop)
            logits_TV[:, start:stop] = h_TD @ piece.values.T
            if self.watch is not None:
                self.watch.head(Product(h_TD, piece, logits_TV[:, start:stop]))
        return logits_TV

    def _norm(self, x_TD: Float64, name: str) -> Float64:
        weight_D = self.weights.array(name)
        return x_TD / rms(x_TD, self.config.rms_norm_eps)[:, None] * weight_D

    def _linear(self, x_TI: Float64, name: str, terms: int = 1) -> Product:
        weight = self.weights.piece(name)
        return Product(x_TI, weight, x_TI @ weight.values.T, "linear", terms)

    def _rotated_heads(self, y_TO: Float64) -> tuple[Float64, Float64]:
        """Return the heads [n, T, d], rotated and divided by their RMS, and the RMS [n, T]."""
        x_nTd = rotate(heads(y_TO, self.config.head_dim), self.turn_Tp)
        rms_nT = rms(x_nTd, self.config.rms_norm_eps)
        return x_nTd / rms_nT[..., None], rms_nT

    def _swiglu(self, h_TD: Float64, prefix: str) -> Float64:
        gate = self._linear(h_TD, f"{prefix}.gate_proj.weight")
        up = self._linear(h_TD, f"{prefix}.up_proj.weight")
        down = self._linear(silu(gate.y_TO) * up.y_TO, f"{prefix}.down_proj.weight")
        if self.watch is not None:
            self.watch.swiglu(SwiGluTrace(np.arange(len(h_TD)), None, gate, up, down))
        return down.y_TO

    def _route(self, h_TD: Float64, prefix: str) -> RouterTrace:
        router_ED = self.weights.array(f"{prefix}.router.weight")
        bias_E = self.weights.array(f"{prefix}.expert_bias")
        weight = Piece(router_ED, np.zeros((len(router_ED), 0)))
        logits = Product(h_TD, weight, h_TD @ router_ED.T, "router")
        scores_TE = sigmoid(logits.y_TO)
        order_TE = np.argsort(-(scores_TE + bias_E), axis=-1, kind="stable")
        ids_TK = order_TE[:, : self.config.num_experts_per_tok]
        chosen_TK = np.take_along_axis(scores_TE, ids_TK, axis=-1)
        total_T1 = chosen_TK.sum(-1, keepdims=True) + 1e-20
        weights_TK = chosen_TK / total_T1 * self.config.routed_scaling_factor
        trace = RouterTrace(logits, scores_TE, bias_E, ids_TK, weights_TK)
        if self.watch is not None:
            self.watch.router(trace)
        return trace

    def _add_expert(self, expert: int, routing: RouterTrace, prefix: str, y_TD: Float64) -> None:
        tokens_S, choices_S = np.nonzero(routing.topk_ids_TK == expert)
        h_SD = routing.logits.x_TI[tokens_S]
        F = self.config.intermediate_size
        gate_up = self.weights.expert(f"{prefix}.experts.gate_up_proj", expert)
        gate = expert_product(h_SD, gate_up.columns(0, F))
        up = expert_product(h_SD, gate_up.columns(F, 2 * F))
        down_FD = self.weights.expert(f"{prefix}.experts.down_proj", expert)
        down = expert_product(silu(gate.y_TO) * up.y_TO, down_FD)
        weights_S1 = routing.topk_weights_TK[tokens_S, choices_S][:, None]
        y_TD[tokens_S] += weights_S1 * down.y_TO
        if self.watch is not None:
            self.watch.swiglu(SwiGluTrace(tokens_S, choices_S, gate, up, down))


def expert_product(x_SI: Float64, weight: Piece) -> Product:
    """Return x W for the weights [in, out] of one expert."""
    return Product(x_SI, weight, x_SI @ weight.values, "expert")


def rms(x: Float64, eps: float) -> Float64:
    """Return the root mean square over the last axis."""
    result: Float64 = np.sqrt(np.square(x).mean(-1) + eps)
    return result


def silu(x: Float64) -> Float64:
    """Return x sigmoid(x)."""
    return x * sigmoid(x)


def sigmoid(x: Float64) -> Float64:
    """Return 1 / (1 + e^-x)."""
    with np.errstate(over="ignore"):  # e^-x may be infinite: the result is then 0
        result: Float64 = 1 / (1 + np.exp(-x))
    return result


def softmax(scores: Float64) -> Float64:
    """Return the softmax over the last axis; minus infinity becomes 0."""
    raised = np.exp(scores - scores.max(-1, keepdims=True))
    result: Float64 = raised / raised.sum(-1, keepdims=True)
    return result


def heads(x_TI: Float64, d: int) -> Float64:
    """Split [T, n d] into [n, T, d]."""
    return x_TI.reshape(len(x_TI), -1, d).transpose(1, 0, 2)


def causal_scores(q_HTd: Float64, k_HNd: Float64) -> Float64:
    """Return q k^T / sqrt(d) [H, T, N], minus infinity for later positions."""
    scores_HTN = q_HTd @ k_HNd.transpose(0, 2, 1) / np.sqrt(q_HTd.shape[-1])
    later_TN = np.triu(np.ones(scores_HTN.shape[1:], bool), 1)
    return np.where(later_TN, -np.inf, scores_HTN)


def rotations(config: ModelConfig, tokens: int) -> npt.NDArray[np.complex128]:
    """Return e^(i angle) [T, d/2]; pair j turns by theta^(-2j/d) per position.

    A frequency whose wavelength exceeds the original context is divided by the factor: the
    llama3 rule with low = high = 1.
    """
    frequency_p = config.rope_theta ** (-np.arange(0, config.head_dim, 2) / config.head_dim)
    too_long_p = 2 * np.pi / frequency_p > config.rope_original_max_position_embeddings
    frequency_p = np.where(too_long_p, frequency_p / config.rope_scaling_factor, frequency_p)
    turn_Tp: npt.NDArray[np.complex128] = np.exp(1j * np.arange(tokens)[:, None] * frequency_p)
    return turn_Tp


def rotate(x_nTd: Float64, turn_Tp: npt.NDArray[np.complex128]) -> Float64:
    """Turn the pairs (2j, 2j + 1) of the last axis."""
    turned_nTp = (x_nTd[..., 0::2] + 1j * x_nTd[..., 1::2]) * turn_Tp
    return np.stack([turned_nTp.real, turned_nTp.imag], axis=-1).reshape(x_nTd.shape)
