"""What the reference shows to those who watch it: every product with its input and output.

T tokens, S slots (tokens of one expert), I inputs, O outputs, D hidden, H query heads, G kv heads,
d head dim, E experts, K top-k.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from mobilemoe.verify.files import Float64, Piece

Layout = Literal["linear", "expert", "router"]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Product:
    """One matrix product: y = x W^T, or x W where `layout` is "expert" (weights [in, out]).

    `terms` is how many int8 rows the engine's fast mode sums to represent a row of x.
    """

    x_TI: Float64
    weight: Piece
    y_TO: Float64
    layout: Layout = "linear"
    terms: int = 1


@dataclass(frozen=True)
class AttentionTrace:
    """One layer's attention. q and k are rotated and normalised, `_rms` what divided them."""

    q: Product
    k: Product
    v: Product
    o: Product
    turn_Tp: npt.NDArray[np.complex128]
    q_HTd: Float64
    k_GTd: Float64
    v_GTd: Float64
    q_rms_HT: Float64
    k_rms_GT: Float64
    scores_HTN: Float64
    p_HTN: Float64


@dataclass(frozen=True)
class RouterTrace:
    """One layer's routing; `logits` has no INT4 weights."""

    logits: Product
    scores_TE: Float64
    bias_E: Float64
    topk_ids_TK: Int64
    topk_weights_TK: Float64


@dataclass(frozen=True)
class SwiGluTrace:
    """One SwiGLU: a routed expert with its tokens, or the shared or dense one (choice None).

    Slot s belongs to token `tokens_S[s]`, whose choice number `choices_S[s]` the expert is.
    """

    tokens_S: Int64
    choices_S: Int64 | None
    gate: Product
    up: Product
    down: Product


class Watcher(Protocol):
    """Is shown each part of the forward pass once, in order."""

    def attention(self, trace: AttentionTrace) -> None:
        """Take one layer's attention."""

    def router(self, trace: RouterTrace) -> None:
        """Take one layer's routing; its experts follow."""

    def swiglu(self, trace: SwiGluTrace) -> None:
        """Take one expert, or the shared or dense feed-forward."""

    def head(self, logits: Product) -> None:
        """Take some columns of the logits."""
