"""Two columns against each other: tensor by tensor from one input, and over a whole forward pass.

T tokens, K top-k, L layers that route, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mobilemoe.verify.bounds import Bools, LayerBounds
from mobilemoe.verify.columns import Floats, LayerOutput, Run
from mobilemoe.verify.files import Float64
from mobilemoe.verify.pairs import SAFETY, Comparison, EndToEnd, Kind

EXPERTS = "experts"


@dataclass(frozen=True)
class LayerParts:
    """What one column computed in one layer from the reference's residual stream."""

    attention_TD: Floats
    output: LayerOutput


@dataclass(frozen=True)
class LayerResults:
    """One layer, ready to compare: two columns, the reference and the bounds."""

    layer: int
    reference: LayerParts
    bounds: LayerBounds

    def compare(self, left: LayerParts, right: LayerParts, kind: Kind) -> list[Comparison]:
        """Return the comparisons of this layer in the order of the forward pass."""
        attention = (left.attention_TD, right.attention_TD, self.reference.attention_TD)
        found = [self._tensor("attention", attention, kind)]
        same_T = None
        routing = self._routing(left.output, right.output, kind)
        if routing is not None:
            comparisons, same_T = routing
            found += comparisons
        outputs = (left.output, right.output, self.reference.output)
        ffn = tuple(output.feed_forward_TD for output in outputs)
        if same_T is None or same_T.any():
            found.append(self._tensor("feed_forward", ffn, kind, same_T))
        return found

    def _routing(
        self, left: LayerOutput, right: LayerOutput, kind: Kind
    ) -> tuple[list[Comparison], Bools] | None:
        """Compare what routes; also return where [T] both chose the same experts."""
        near_T = self.bounds.near_tie_T
        if near_T is None:
            return None
        assert left.topk_ids_TK is not None and right.topk_ids_TK is not None
        outputs = (left, right, self.reference.output)
        logits = tuple(output.router_logits_TE for output in outputs)
        same_T = same_sets(left.topk_ids_TK, right.topk_ids_TK)
        unexplained = float((~same_T & ~near_T).mean())
        sets = Comparison(self.layer, EXPERTS, unexplained, 0.0, 0.0)
        return [self._tensor("router_logits", logits, kind), sets], same_T

    def _tensor(
        self, name: str, values: tuple[Any, ...], kind: Kind, tokens: Bools | None = None
    ) -> Comparison:
        return compare_tensor(self.layer, name, values, kind, self.bounds, tokens)


def compare_tensor(
    layer: int | None,
    name: str,
    values: tuple[Any, ...],
    kind: Kind,
    bounds: LayerBounds,
    tokens: Bools | None = None,
) -> Comparison:
    """Compare `values` = (left, right, reference), each [T, N], over `tokens` (None: all)."""
    left, right, reference = (_wide(value, tokens) for value in values)
    size = float(np.linalg.norm(reference))
    expected = bounds.expected(kind, name, tokens)
    measured = float(np.linalg.norm(left - right))
    if size > 0:
        measured, expected = measured / size, expected / size
    return Comparison(layer, name, measured, expected, SAFETY * expected)


def same_sets(left_TK: npt.NDArray[Any], right_TK: npt.NDArray[Any]) -> Bools:
    """Return where [..., T] two choices are the same set of experts."""
    same: Bools = (np.sort(left_TK, axis=-1) == np.sort(right_TK, axis=-1)).all(-1)
    return same


def compare_runs(left: Run, right: Run, moe_layers: tuple[int, ...]) -> EndToEnd:
    """Compare two whole forward passes; `moe_layers` names the layers that route."""
    wide_l, wide_r = _wide(left.logits_TV), _wide(right.logits_TV)
    with np.errstate(invalid="ignore", divide="ignore"):
        norms_T = np.linalg.norm(wide_l, axis=-1) * np.linalg.norm(wide_r, axis=-1)
        cosine_T = (wide_l * wide_r).sum(-1) / norms_T
        error = np.abs(wide_l - wide_r).max() / np.abs(wide_l).max()
    share, layer, layer_share = _sets(left, right, moe_layers)
    return EndToEnd(
        sets_differ=share,
        worst_layer=layer,
        worst_layer_sets_differ=layer_share,
        median_cosine=float(np.median(cosine_T)),
        min_cosine=float(cosine_T.min()),
        argmax_agreement=float((wide_l.argmax(-1) == wide_r.argmax(-1)).mean()),
        max_relative_error=float(error),
    )


def _sets(
    left: Run, right: Run, moe_layers: tuple[int, ...]
) -> tuple[float | None, int | None, float | None]:
    if left.topk_ids_LTK is None or right.topk_ids_LTK is None:
        return None, None, None
    differ_LT = ~same_sets(left.topk_ids_LTK, right.topk_ids_LTK)
    worst = int(differ_LT.mean(-1).argmax())
    return float(differ_LT.any(0).mean()), moe_layers[worst], float(differ_LT[worst].mean())


def _wide(value: Floats | None, tokens: Bools | None = None) -> Float64:
    assert value is not None
    rows = value if tokens is None else value[tokens]
    return np.asarray(rows, np.float64)
