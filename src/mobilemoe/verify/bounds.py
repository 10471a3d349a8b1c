"""The expected difference of two columns, propagated through a layer beside the reference.

`Bounds` watches the reference compute and carries, for each source of error in `noise.py`, the
variance of every element through the formulas to first order: an error e in the input of f becomes
f'(x) e, errors of different origin are independent, and their variances add.

* Linear, y = W x: var(y_o) = sum_i W_oi^2 var(x_i), plus what the source adds.
* SwiGLU, a = silu(g) u: var(a) = (silu'(g) u)^2 var(g) + silu(g)^2 var(u),
  silu'(g) = s + g s (1 - s) with s = sigmoid(g).
* RMS over a head, y = x / r: y moves by (e_i - y_i sum_j y_j e_j / d) / r, hence
  var(y_i) = (var_i - 2 y_i^2 var_i / d + y_i^2 sum_j y_j^2 var_j / d^2) / r^2. RoPE turns pairs.
  The cache adds its own to keys and values.
* Softmax attention, o = sum_n p_n v_n with p = softmax(s): o moves by
  sum_n p_n (v_n - o) e(s_n) + sum_n p_n e(v_n). The error of a score is
  (e(q) k_n + q e(k_n)) / sqrt(d). That of q is one for all n, so it meets the matrix
  M_ji = sum_n p_n (v_nj - o_j) k_ni / sqrt(d) and gives sum_i M_ji^2 var(q_i); the others are
  independent over n. Where the error lies in the weights, e(v_n) = E h_n with one E for all n, so
  sum_n p_n e(v_n) = E sum_n p_n h_n: the product's own rule for the mixed input.
* Routing weights w_k = c s_k / sum s: with a_k = (1 - s_k)^2 var(logit_k) and r = w / c,
  var(w_k) = w_k^2 (a_k (1 - r_k)^2 + sum_{j != k} r_j^2 a_j).
* Sum over experts: var(y) = sum_k w_k^2 var(y_k) + y_k^2 var(w_k).

The expected norm of a difference is the root of the sum of the variances: the expectation of a
squared norm does not ask whether elements are correlated.

T tokens, N positions, S slots, D hidden, H query heads, G kv heads, d head dim, p pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mobilemoe.verify.files import Float64
from mobilemoe.verify.noise import ROUNDING_VARIANCE, Noise, squares_share, sum_share
from mobilemoe.verify.pairs import SAFETY, Kind
from mobilemoe.verify.reference import sigmoid, silu
from mobilemoe.verify.trace import AttentionTrace, Int64, Product, RouterTrace, SwiGluTrace

# Elementwise float32 steps, each of which rounds once: the input itself, its square mean, the
# reciprocal root, two products.
NORM_STEPS = 5
# Cosine and sine, two products, a sum, then the head's norm.
ROTATION_STEPS = 9
# e^x, a sum, a division, a product.
SWIGLU_STEPS = 4
# Of a softmax's exponential, sum and division, in relative terms.
SOFTMAX_STEPS = 4

Bools = npt.NDArray[np.bool_]
Squares = dict[tuple[Kind, str], Float64]


@dataclass(frozen=True)
class LayerBounds:
    """What one layer's tensors are expected to differ by.

    `squares` has the expected squared difference [T] by source and tensor; `near_tie_T` says
    where rounding may change the set of experts, None if the layer does not route.
    """

    squares: Squares
    near_tie_T: Bools | None

    def expected(self, kind: Kind, tensor: str, tokens: Bools | None = None) -> float:
        """Return the expected norm of the difference of `tensor` over `tokens` (None: all)."""
        kinds: tuple[Kind, ...] = ("rounding",) if kind == "rounding" else ("rounding", kind)
        squares_T = sum((self.squares[each, tensor] for each in kinds), np.zeros(1))
        return float(np.sqrt(squares_T.sum() if tokens is None else squares_T[tokens].sum()))


class Bounds:
    """Watches a reference of `tokens` tokens; `take` hands over what a layer came to."""

    def __init__(self, noises: Sequence[Noise], tokens: int) -> None:
        self._noises = tuple(noises)
        self._tokens = tokens
        self._squares: Squares = {}
        self._routing: dict[Kind, Float64] = {}
        self._router: RouterTrace | None = None
        self._near_tie_T: Bools | None = None

    def take(self) -> LayerBounds:
        """Return the bounds of what was seen since the last call, and begin anew."""
        taken = LayerBounds(self._squares, self._near_tie_T)
        self._squares, self._router, self._near_tie_T = {}, None, None
        return taken

    def attention(self, trace: AttentionTrace) -> None:
        """Propagate through one layer's attention."""
        for noise in self._noises:
            self._add(noise, "attention", attention_variance(noise, trace))

    def router(self, trace: RouterTrace) -> None:
        """Propagate to the router's logits and the weights of the choices."""
        self._router = trace
        for noise in self._noises:
            variance_TE = noise.product(trace.logits, noise.rounding(trace.logits.x_TI, NORM_STEPS))
            self._add(noise, "router_logits", variance_TE)
            self._routing[noise.kind] = weight_variance(trace, variance_TE)
            if noise.kind == "rounding":
                self._near_tie_T = near_ties(trace, variance_TE)

    def swiglu(self, trace: SwiGluTrace) -> None:
        """Propagate through one expert or the shared or dense feed-forward."""
        for noise in self._noises:
            variance_SD = swiglu_variance(noise, trace)
            if trace.choices_S is not None and self._router is not None:
                at = (trace.tokens_S, trace.choices_S)
                weights_S1 = self._router.topk_weights_TK[at][:, None]
                variance_SD = np.square(weights_S1) * variance_SD
                variance_SD += self._routing[noise.kind][at][:, None] * np.square(trace.down.y_TO)
            self._add(noise, "feed_forward", variance_SD, trace.tokens_S)

    def head(self, logits: Product) -> None:
        """Propagate to some columns of the logits."""
        for noise in self._noises:
            variance_TI = noise.rounding(logits.x_TI, NORM_STEPS)
            self._add(noise, "logits", noise.product(logits, variance_TI))

    def _add(
        self, noise: Noise, tensor: str, variance: Float64, tokens_S: Int64 | None = None
    ) -> None:
        sums = self._squares.setdefault((noise.kind, tensor), np.zeros(self._tokens))
        # An expert has a token at most once, so that no index stands twice.
        sums[slice(None) if tokens_S is None else tokens_S] += variance.sum(-1)


def attention_variance(noise: Noise, trace: AttentionTrace) -> Float64:
    """Return the variance [T, D] of one layer's attention."""
    q_HTd = rotated_variance(noise, trace, trace.q, trace.q_HTd, trace.q_rms_HT)
    k_GTd = rotated_variance(noise, trace, trace.k, trace.k_GTd, trace.k_rms_GT)
    k_GTd += noise.cached(trace.k_GTd)
    v_GTd = split_variance(noise, trace.v, trace.v_GTd.shape[-1]) + noise.cached(trace.v_GTd)
    repeat = len(q_HTd) // len(k_GTd)
    mixed = [
        score_part(noise, trace, head, q_HTd[head], k_GTd[head // repeat])
        + value_part(noise, trace, head, v_GTd[head // repeat])
        for head in range(len(q_HTd))
    ]
    mixed_TI = np.stack(mixed, axis=1).reshape(len(trace.q.x_TI), -1)
    return noise.product(trace.o, mixed_TI)


def split_variance(noise: Noise, product: Product, d: int) -> Float64:
    """Return the variance [n, T, d] of a projection of the normalised input."""
    variance_TO = noise.product(product, noise.rounding(product.x_TI, NORM_STEPS))
    return variance_TO.reshape(len(variance_TO), -1, d).transpose(1, 0, 2)


def rotated_variance(
    noise: Noise, trace: AttentionTrace, product: Product, y_nTd: Float64, rms_nT: Float64
) -> Float64:
    """Return the variance [n, T, d] of queries or keys, rotated and normalised."""
    d = y_nTd.shape[-1]
    turned = turned_variance(split_variance(noise, product, d), trace.turn_Tp)
    squares = np.square(y_nTd)
    spread_nT1 = (squares * turned).sum(-1, keepdims=True) / d**2
    moved = turned * (1 - 2 * squares / d) + squares * spread_nT1
    normed: Float64 = moved / np.square(rms_nT)[..., None]
    return normed + noise.rounding(y_nTd, ROTATION_STEPS)


def turned_variance(variance_nTd: Float64, turn_Tp: npt.NDArray[np.complex128]) -> Float64:
    """Return the variance of pairs (a, b) turned to (a cos - b sin, a sin + b cos)."""
    even, odd = variance_nTd[..., 0::2], variance_nTd[..., 1::2]
    cos, sin = np.square(turn_Tp.real), np.square(turn_Tp.imag)
    turned = np.stack([even * cos + odd * sin, even * sin + odd * cos], axis=-1)
    return turned.reshape(variance_nTd.shape)


def score_part(
    noise: Noise, trace: AttentionTrace, head: int, q_Td: Float64, k_Nd: Float64
) -> Float64:
    """Return what errors of the scores of one head add to its output's variance [T, d]."""
    group = head // (len(trace.q_HTd) // len(trace.k_GTd))
    p_TN, keys_Nd, values_Nd = trace.p_HTN[head], trace.k_GTd[group], trace.v_GTd[group]
    queries_Td, d = trace.q_HTd[head], trace.q_HTd.shape[-1]
    out_Td = p_TN @ values_Nd
    weighted_TNd = p_TN[..., None] * keys_Nd
    matrix_Tji = values_Nd.T @ weighted_TNd - out_Td[..., None] * weighted_TNd.sum(1)[:, None]
    from_q_Td = (np.square(matrix_Tji) @ q_Td[..., None])[..., 0] / d
    score_TN = np.square(queries_Td) @ k_Nd.T / d
    if noise.kind == "rounding":
        score_TN = score_TN + score_rounding(trace.scores_HTN[head], queries_Td, keys_Nd)
    seen_TN = np.square(p_TN) * np.where(p_TN > 0, score_TN, 0)
    deviation = seen_TN @ np.square(values_Nd) - 2 * out_Td * (seen_TN @ values_Nd)
    from_k_Td = deviation + np.square(out_Td) * seen_TN.sum(1, keepdims=True)
    result: Float64 = from_q_Td + np.maximum(from_k_Td, 0)  # a variance, were it not for rounding
    return result


def score_rounding(scores_TN: Float64, q_Td: Float64, k_Nd: Float64) -> Float64:
    """Return the variance of float32 scores and of the exponentials that follow."""
    d = q_Td.shape[-1]
    squares_TN = squares_share(d) * (np.square(q_Td) @ np.square(k_Nd).T) / d
    finite_TN = np.where(np.isfinite(scores_TN), scores_TN, 0)
    sums_TN = (sum_share(d) + ROUNDING_VARIANCE) * np.square(finite_TN)
    result: Float64 = squares_TN + sums_TN + SOFTMAX_STEPS * ROUNDING_VARIANCE
    return result


def value_part(noise: Noise, trace: AttentionTrace, head: int, v_Nd: Float64) -> Float64:
    """Return what errors of the values add to one head's output [T, d]."""
    p_TN, d = trace.p_HTN[head], v_Nd.shape[-1]
    group = head // (len(trace.q_HTd) // len(trace.k_GTd))
    if noise.shared:
        rows = trace.v.weight.rows(group * d, (group + 1) * d)
        mixed_TD = p_TN @ trace.v.x_TI
        return noise.product(Product(mixed_TD, rows, mixed_TD @ rows.values.T), None)
    result: Float64 = np.square(p_TN) @ v_Nd
    if noise.kind == "rounding":
        result += mixing_rounding(p_TN, trace.v_GTd[group])
    return result


def mixing_rounding(p_TN: Float64, v_Nd: Float64) -> Float64:
    """Return the variance [T, d] of float32 sums of p v; row t has t + 1 terms."""
    variance_Td = np.empty((len(p_TN), v_Nd.shape[1]))
    for t, p_N in enumerate(p_TN):
        squares_d = np.square(p_N) @ np.square(v_Nd)
        mean_d = np.square(p_N @ v_Nd)
        variance_Td[t] = squares_share(t + 1) * squares_d + sum_share(t + 1) * mean_d
    return variance_Td


def swiglu_variance(noise: Noise, trace: SwiGluTrace) -> Float64:
    """Return the variance [S, D] of (silu(x G) * (x U)) Dn."""
    x_variance = noise.rounding(trace.gate.x_TI, NORM_STEPS)
    gate_SF = noise.product(trace.gate, x_variance)
    up_SF = noise.product(trace.up, x_variance)
    gate, up = trace.gate.y_TO, trace.up.y_TO
    s = sigmoid(gate)
    slope = s * (1 + gate * (1 - s))
    activated_SF = np.square(slope * up) * gate_SF + np.square(silu(gate)) * up_SF
    activated_SF += noise.rounding(trace.down.x_TI, SWIGLU_STEPS)
    return noise.product(trace.down, activated_SF)


def weight_variance(trace: RouterTrace, variance_TE: Float64) -> Float64:
    """Return the variance [T, K] of the weights of the chosen experts."""
    scores_TK = np.take_along_axis(trace.scores_TE, trace.topk_ids_TK, axis=-1)
    logits_TK = np.take_along_axis(variance_TE, trace.topk_ids_TK, axis=-1)
    relative_TK = np.square(1 - scores_TK) * logits_TK
    share_TK = scores_TK / (scores_TK.sum(-1, keepdims=True) + 1e-20)
    others_TK = np.square(share_TK) * relative_TK
    others_TK = others_TK.sum(-1, keepdims=True) - others_TK
    own_TK = np.square(1 - share_TK) * relative_TK
    result: Float64 = np.square(trace.topk_weights_TK) * (own_TK + others_TK)
    return result


def near_ties(trace: RouterTrace, variance_TE: Float64) -> Bools:
    """Return where [T] the last chosen expert beats the next by less than the scores may err."""
    ordered_TE = -np.sort(-(trace.scores_TE + trace.bias_E), axis=-1)
    K = trace.topk_ids_TK.shape[1]
    if ordered_TE.shape[1] == K:
        return np.zeros(len(ordered_TE), bool)
    margin_T = ordered_TE[:, K - 1] - ordered_TE[:, K]
    slope_TE = trace.scores_TE * (1 - trace.scores_TE)
    score_TE = np.square(slope_TE) * variance_TE + ROUNDING_VARIANCE * np.square(ordered_TE)
    near_T: Bools = margin_T <= SAFETY * np.sqrt(2 * score_TE.max(-1))
    return near_T
