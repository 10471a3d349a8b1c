"""How far the logits of two correct computations may differ: the errors of all parts, carried on.

`noise.py` bounds each part from a common input. Here the parts' errors meet: what one leaves is
the next one's input. Several copies of the forward pass run side by side in float64, each with
differences of its own drawn at every product and rounding (`dither.py`), with the same experts
in all. The mean square of what they come to at the logits is the expected squared difference,
sum over parts l of E ||J_l delta_l||^2 to first order: the model itself is its Jacobian, and what
is correlated stays so. (Random rounding in place of an analysis: D. S. Parker, "Monte Carlo
Arithmetic", UCLA CSD-970002, 1997; here the errors are derived, not emulated.)

Where integers flip, the difference of a token is rare and whole rather than small: `expected` is
for the sum over tokens, `worst`, in which every value is rounded anew, for each token.

C copies, T tokens, N positions (also T), D hidden, S slots of an expert, E experts, K top-k,
H query heads, G kv heads or groups of 32 outputs, d head dim, L layers that route.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mobilemoe.engine import Kv
from mobilemoe.verify.bounds import NORM_STEPS, ROTATION_STEPS, SOFTMAX_STEPS, SWIGLU_STEPS
from mobilemoe.verify.columns import Int64
from mobilemoe.verify.dither import SIDES, Dither, scales
from mobilemoe.verify.files import Float64, Piece, Weights, row_chunks
from mobilemoe.verify.noise import ROUNDING_VARIANCE
from mobilemoe.verify.reference import (
    ATTENTION_TERMS,
    Reference,
    rms,
    rotate,
    sigmoid,
    silu,
    softmax,
)
from mobilemoe.weights import GROUP_SIZE

COPIES = 16


@dataclass(frozen=True)
class Spread:
    """Expected squared differences: of the logits [T], of each layer's scores [L, T, E]."""

    logits_T: Float64
    scores_LTE: Float64


class SpreadPass:
    """The model of `weights` over `ids_T`, in 1 + `copies` copies, with the experts `topk_ids_LTK`.

    The experts (None in a dense model) are those that both sides are given.
    """

    def __init__(
        self,
        weights: Weights,
        ids_T: Sequence[int],
        topk_ids_LTK: Int64 | None,
        dither: Dither,
        copies: int = COPIES,
    ) -> None:
        self._weights, self._config, self._dither = weights, weights.config, dither
        self._reference = Reference(weights, len(ids_T))
        self._choices = iter(()) if topk_ids_LTK is None else iter(topk_ids_LTK)
        x_TD = self._reference.embed(ids_T)
        self._x_CTD = np.repeat(x_TD[None], 1 + copies, axis=0)
        self._scores: list[Float64] = []

    def run(self) -> Spread:
        """Return what the logits and the routers' scores are expected to differ by."""
        for layer in range(self._config.num_hidden_layers):
            self._add(self._attention(layer))
            self._add(self._feed_forward(layer))
        T, E = self._x_CTD.shape[1], self._config.num_local_experts
        scores = np.stack(self._scores) if self._scores else np.zeros((0, T, E))
        return Spread(self._logits(), scores)

    def _add(self, y_CTD: Float64) -> None:
        self._x_CTD = self._dither.steps(self._x_CTD + y_CTD, 1)

    def _norm(self, name: str) -> Float64:
        weight_D = self._weights.array(name)
        rms_CT = rms(self._x_CTD, self._config.rms_norm_eps)
        return self._dither.steps(self._x_CTD / rms_CT[..., None] * weight_D, NORM_STEPS)

    def _linear(self, x_CTI: Float64, name: str) -> Float64:
        w_IO = self._weights.piece(name).values.T
        return self._dither.product(x_CTI, w_IO, x_CTI @ w_IO)

    def _attention(self, layer: int) -> Float64:
        dither, prefix = self._dither, f"model.layers.{layer}"
        h_CTD = self._norm(f"{prefix}.input_layernorm.weight")
        h_CTD = dither.activations(h_CTD, ATTENTION_TERMS)
        q, k, v = (
            self._heads(self._linear(h_CTD, f"{prefix}.self_attn.{name}_proj.weight"))
            for name in "qkv"
        )
        repeat = q.shape[1] // k.shape[1]
        k = np.repeat(dither.stored(self._rotated(k)), repeat, axis=1)
        v = np.repeat(dither.stored(v), repeat, axis=1)
        mixed = self._mixed(dither.queries(self._rotated(q)), k, v)
        mixed_CTI = mixed.transpose(0, 2, 1, 3).reshape(*h_CTD.shape[:2], -1)
        mixed_CTI = dither.activations(mixed_CTI, ATTENTION_TERMS)
        return self._linear(mixed_CTI, f"{prefix}.self_attn.o_proj.weight")

    def _heads(self, y_CTO: Float64) -> Float64:
        split = y_CTO.reshape(*y_CTO.shape[:2], -1, self._config.head_dim)
        return split.transpose(0, 2, 1, 3)

    def _rotated(self, x_CnTd: Float64) -> Float64:
        turned = rotate(x_CnTd, self._reference.turn_Tp)
        turned = turned / rms(turned, self._config.rms_norm_eps)[..., None]
        return self._dither.steps(turned, ROTATION_STEPS)

    def _mixed(self, q_CHTd: Float64, k_CHNd: Float64, v_CHNd: Float64) -> Float64:
        """Return softmax(q k^T / sqrt(d)) v [C, H, T, d], causal."""
        dither, (T, d) = self._dither, q_CHTd.shape[2:]
        q_CHTd, k_CHdN = q_CHTd / np.sqrt(d), k_CHNd.swapaxes(2, 3)
        scores = dither.product(q_CHTd, k_CHdN[0], q_CHTd @ k_CHdN)
        dither.add(scores, np.full(scores.shape[1:], SIDES * SOFTMAX_STEPS * ROUNDING_VARIANCE))
        later_TN = np.triu(np.ones((T, T), bool), 1)
        p_CHTN = softmax(np.where(later_TN, -np.inf, scores))
        p_CHTN = dither.softmax_weights(p_CHTN, v_CHNd)
        seen_T1 = np.arange(1.0, T + 1)[:, None]
        return dither.product(p_CHTN, v_CHNd[0], p_CHTN @ v_CHNd, seen_T1)

    def _feed_forward(self, layer: int) -> Float64:
        prefix = f"model.layers.{layer}"
        h_CTD = self._norm(f"{prefix}.post_attention_layernorm.weight")
        prefix = f"{prefix}.feed_forward"
        if not self._config.is_moe_layer(layer):
            return self._swiglu(h_CTD, prefix)
        y_CTD = self._routed(h_CTD, prefix, next(self._choices))
        if self._config.intermediate_size_mlp:
            y_CTD = y_CTD + self._swiglu(h_CTD, f"{prefix}.shared_expert")
        return self._dither.steps(y_CTD, self._config.num_experts_per_tok)

    def _swiglu(self, h_CTD: Float64, prefix: str) -> Float64:
        h_CTD = self._dither.activations(h_CTD)
        gate, up = (self._linear(h_CTD, f"{prefix}.{name}_proj.weight") for name in ("gate", "up"))
        a_CTF = self._dither.steps(silu(gate) * up, SWIGLU_STEPS)
        return self._linear(self._dither.activations(a_CTF), f"{prefix}.down_proj.weight")

    def _routed(self, h_CTD: Float64, prefix: str, topk_ids_TK: Int64) -> Float64:
        """Return the sum over the chosen experts, with the weights that the scores give them."""
        router_DE = self._weights.array(f"{prefix}.router.weight").T
        logits = self._dither.product(h_CTD, router_DE, h_CTD @ router_DE)
        scores_CTE = self._dither.steps(sigmoid(logits), SOFTMAX_STEPS)
        self._scores.append(np.square(scores_CTE[1:] - scores_CTE[:1]).mean(0))
        chosen_CTK = np.take_along_axis(scores_CTE, topk_ids_TK[None], axis=-1)
        share_CTK = chosen_CTK / (chosen_CTK.sum(-1, keepdims=True) + 1e-20)
        weights_CTK = self._dither.steps(share_CTK, self._config.num_experts_per_tok)
        weights_CTK = weights_CTK * self._config.routed_scaling_factor
        y_CTD = np.zeros_like(h_CTD)
        for expert in np.unique(topk_ids_TK):
            tokens_S, choices_S = np.nonzero(topk_ids_TK == expert)
            y_CSD = self._expert(h_CTD[:, tokens_S], prefix, int(expert))
            y_CTD[:, tokens_S] += weights_CTK[:, tokens_S, choices_S][..., None] * y_CSD
        return y_CTD

    def _expert(self, h_CSD: Float64, prefix: str, expert: int) -> Float64:
        gate_up = self._weights.expert(f"{prefix}.experts.gate_up_proj", expert)
        gate, up = np.split(self._folded(h_CSD, gate_up), 2, axis=-1)
        a_CSF = self._dither.steps(silu(gate) * up, SWIGLU_STEPS)
        return self._folded(a_CSF, self._weights.expert(f"{prefix}.experts.down_proj", expert))

    def _folded(self, x_CSI: Float64, weight: Piece) -> Float64:
        """Return x W; in int8 every group of outputs reads x rounded to steps of its own.

        The step of b = x s / S is max |x| / 127: that of x is S / s as large (`quant.experts`).
        """
        y_CSO = x_CSI @ weight.values
        if self._dither.int8:
            scale, ratio = scales(x_CSI.reshape(*x_CSI.shape[:-1], -1, GROUP_SIZE))
            wide_SI = np.repeat(scale[..., 0], GROUP_SIZE, axis=-1)
            ratio_CSI = np.repeat(ratio[..., 0], GROUP_SIZE, axis=-1)
            blocks = weight.scales.reshape(-1, GROUP_SIZE, weight.scales.shape[1])
            largest = np.broadcast_to(blocks.max(1, keepdims=True), blocks.shape)
            shares_IG = np.divide(largest, blocks, out=np.zeros_like(blocks), where=blocks > 0)
            for group, share_I in enumerate(shares_IG.reshape(weight.scales.shape).T):
                columns = slice(group * GROUP_SIZE, (group + 1) * GROUP_SIZE)
                x = self._dither.integers(x_CSI, wide_SI * share_I, ratio_CSI)
                y_CSO[..., columns] = x @ weight.values[:, columns]
        return self._dither.product(x_CSI, weight.values, y_CSO)

    def _logits(self) -> Float64:
        """Return the expected squared difference [T] of all logits."""
        tied = self._config.tie_word_embeddings
        name = "model.embed_tokens.weight" if tied else "lm_head.weight"
        h_CTD = self._dither.activations(self._norm("model.norm.weight"))
        squares_T = np.zeros(h_CTD.shape[1])
        for start, stop in row_chunks(self._config.vocab_size, self._config.hidden_size):
            w_IO = self._weights.piece(name, start, stop).values.T
            y_CTO = self._dither.product(h_CTD, w_IO, h_CTD @ w_IO)
            squares_T += np.square(y_CTO[1:] - y_CTO[:1]).sum(-1).mean(0)
        return squares_T


def spread(
    weights: Weights,
    ids_T: Sequence[int],
    topk_ids_LTK: Int64 | None,
    int8: bool,
    kv: Kv,
    worst: bool = False,
) -> Spread:
    """Return the expected differences of two sides that compute `weights` over `ids_T`.

    `int8` and `kv` say how; with `worst` they share no rounding to integers.
    """
    return SpreadPass(weights, ids_T, topk_ids_LTK, Dither(0, int8, kv, worst)).run()
