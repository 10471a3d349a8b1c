"""Section 5: the columns side by side, layer by layer.

In each layer every column gets the same input, the residual stream of the reference, so that an
error shows where it arises and not where it has spread to; beside it each column runs a forward
pass of its own.

T tokens, D hidden.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mobilemoe.config import ModelConfig
from mobilemoe.engine.loading import default_kv
from mobilemoe.verify.bounds import Bounds
from mobilemoe.verify.columns import (
    ENGINE_EXACT,
    ENGINE_INT8,
    FILE,
    TORCH_FAKE,
    TORCH_FP32,
    Column,
    Floats,
    LayerOutput,
    Run,
)
from mobilemoe.verify.compare import LayerParts, LayerResults, compare_runs, compare_tensor
from mobilemoe.verify.files import Float64, Weights
from mobilemoe.verify.noise import Int4Noise, Int8Noise, Noise, RoundingNoise
from mobilemoe.verify.pairs import Comparison, Pair
from mobilemoe.verify.progress import Progress
from mobilemoe.verify.reference import Reference

# Neighbours in the order of the chain. BF16 weights are what torch computes with before rounding,
# so there the rounded column hangs off the float one, for information.
INT4_CHAIN = (
    Pair(TORCH_FP32, TORCH_FAKE, "int4"),
    Pair(TORCH_FAKE, FILE, "rounding"),
    Pair(FILE, ENGINE_EXACT, "rounding"),
    Pair(ENGINE_EXACT, ENGINE_INT8, "int8"),
)
BF16_CHAIN = (
    Pair(TORCH_FP32, TORCH_FAKE, "int4", informational=True),
    Pair(TORCH_FP32, FILE, "rounding"),
    Pair(FILE, ENGINE_EXACT, "rounding"),
    Pair(ENGINE_EXACT, ENGINE_INT8, "int8"),
)


@dataclass(frozen=True)
class Absent:
    """A column that is not there, and why; `refused` if it refused the checkpoint."""

    reason: str
    refused: bool = False


Columns = Mapping[str, Column | Absent]


class ReferenceColumn:
    """The reference as a column: its own forward pass is the stream that all others are given."""

    def __init__(self, reference: Reference) -> None:
        self._reference = reference
        self._layer = 0
        self._topk_ids: list[Floats] = []
        self._logits_TV: Float64

    def start(self, ids_T: Sequence[int]) -> None:
        """Do nothing: `embed` begins the stream."""

    def enter(self, layer: int) -> None:
        """Make `layer` the current one."""
        self._layer = layer

    def embed(self, ids_T: Sequence[int]) -> Float64:
        """Return the residual stream [T, D] before the first layer."""
        return self._reference.embed(ids_T)

    def attention(self, x_TD: Floats) -> Floats:
        """Return what attention adds to x."""
        return self._reference.attention(self._layer, x_TD)

    def feed_forward(self, x_TD: Floats) -> LayerOutput:
        """Return what the feed-forward adds to x, and its routing."""
        output = self._reference.feed_forward(self._layer, x_TD)
        if output.topk_ids_TK is not None:
            self._topk_ids.append(output.topk_ids_TK)
        return output

    def head(self, x_TD: Floats) -> Floats:
        """Return the logits of x."""
        self._logits_TV = self._reference.head(x_TD)
        return self._logits_TV

    def run(self) -> Run:
        """Return the reference's forward pass."""
        return Run(self._logits_TV, np.stack(self._topk_ids) if self._topk_ids else None)


def compare_columns(
    weights: Weights, columns: Columns, ids_T: Sequence[int], progress: Progress
) -> tuple[Pair, ...]:
    """Run all columns over `ids_T` and compare the neighbours.

    `columns` has an entry for each of `columns.COLUMNS` but the file, which is made here from
    `weights`.
    """
    chain = INT4_CHAIN if weights.weight_format == "int4" else BF16_CHAIN
    pairs = [_with_reason(pair, columns) for pair in chain]
    present = {name: column for name, column in columns.items() if not isinstance(column, Absent)}
    wanted = [pair for pair in pairs if pair.skipped is None]
    work = _Parity(weights, present, wanted, ids_T)
    found = work.run(progress)
    return tuple(found.get(pair.name, pair) for pair in pairs)


def _with_reason(pair: Pair, columns: Columns) -> Pair:
    for name in (pair.left, pair.right):
        column = columns.get(name)
        if isinstance(column, Absent):
            return replace(pair, skipped=f"{name}: {column.reason}", refused=column.refused)
    return pair


class _Parity:
    """One comparison of all columns that are there."""

    def __init__(
        self,
        weights: Weights,
        columns: Mapping[str, Column],
        pairs: Sequence[Pair],
        ids_T: Sequence[int],
    ) -> None:
        self._config: ModelConfig = weights.config
        kinds = {pair.kind for pair in pairs}
        noises: list[Noise] = [RoundingNoise()]
        noises += [Int8Noise(default_kv(weights.config, "int8"))] if "int8" in kinds else []
        noises += [Int4Noise()] if "int4" in kinds else []
        self._bounds = Bounds(noises, len(ids_T))
        self._file = ReferenceColumn(Reference(weights, len(ids_T), self._bounds))
        self._columns: dict[str, Column] = {**columns, FILE: self._file}
        self._pairs = pairs
        self._ids_T = ids_T
        self._found: dict[str, list[Comparison]] = {pair.name: [] for pair in pairs}

    def run(self, progress: Progress) -> dict[str, Pair]:
        """Return the finished pairs by name."""
        layers = self._config.num_hidden_layers
        for column in self._columns.values():
            column.start(self._ids_T)
        x_TD = self._file.embed(self._ids_T)
        progress("comparing layers", 0, layers + 1)
        for layer in range(layers):
            x_TD = self._compare_layer(layer, x_TD)
            progress("comparing layers", layer + 1, layers + 1)
        self._compare_logits(x_TD)
        runs = {name: column.run() for name, column in self._columns.items()}
        progress("comparing layers", layers + 1, layers + 1)
        return {pair.name: self._finish(pair, runs) for pair in self._pairs}

    def _compare_layer(self, layer: int, x_TD: Float64) -> Float64:
        """Compare one layer and return the reference's stream after it."""
        self._file.enter(layer)
        attention_TD = self._file.attention(x_TD)
        middle_TD = x_TD + attention_TD
        output = self._file.feed_forward(middle_TD)
        parts = {FILE: LayerParts(attention_TD, output)}
        for name, column in self._columns.items():
            if name == FILE:
                continue
            column.enter(layer)
            parts[name] = LayerParts(column.attention(x_TD), column.feed_forward(middle_TD))
        results = LayerResults(layer, parts[FILE], self._bounds.take())
        for pair in self._pairs:
            found = results.compare(parts[pair.left], parts[pair.right], pair.kind)
            self._found[pair.name] += found
        after_TD: Float64 = middle_TD + output.feed_forward_TD
        return after_TD

    def _compare_logits(self, x_TD: Float64) -> None:
        logits = {name: column.head(x_TD) for name, column in self._columns.items()}
        bounds = self._bounds.take()
        for pair in self._pairs:
            values = (logits[pair.left], logits[pair.right], logits[FILE])
            found = compare_tensor(None, "logits", values, pair.kind, bounds)
            self._found[pair.name].append(found)

    def _finish(self, pair: Pair, runs: Mapping[str, Run]) -> Pair:
        layers = range(self._config.num_hidden_layers)
        routing = tuple(layer for layer in layers if self._config.is_moe_layer(layer))
        end_to_end = compare_runs(runs[pair.left], runs[pair.right], routing)
        return replace(pair, comparisons=tuple(self._found[pair.name]), end_to_end=end_to_end)
