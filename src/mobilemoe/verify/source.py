"""Section 4: the file's integers and scales against those of rounding its float source.

Rounding is a function: where the source and the rule are known, every bit of the file follows.
A file made by quantisation-aware training has such a source only if its float weights were kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mobilemoe.checkpoint import Checkpoint
from mobilemoe.errors import CheckpointError, MobileMoEError
from mobilemoe.quant import pack, quantize, round_bf16
from mobilemoe.verify.files import Weights, is_quantised, row_chunks, rows_of
from mobilemoe.verify.progress import Progress
from mobilemoe.verify.receipt import Check
from mobilemoe.weights import Weight


@dataclass(frozen=True)
class _Difference:
    """How many stored elements of one weight differ."""

    name: str
    values: int
    scales: int


def open_source(checkpoint: Checkpoint, source: Checkpoint) -> Weights:
    """Open the float weights that `checkpoint` was made from.

    Raises:
        MobileMoEError: if they cannot be its source, or are damaged.
    """
    if checkpoint.weight_format != "int4":
        raise MobileMoEError(
            f"{checkpoint.folder} holds {checkpoint.weight_format} weights; a source is compared "
            "with int4 weights only",
            hint="leave the source out",
        )
    if source.weight_format != "bf16":
        raise CheckpointError(
            f"{source.folder}: the source holds {source.weight_format} weights; allowed: bf16",
            hint="give the float weights that the INT4 file was rounded from",
        )
    return Weights(source)


def source_checks(
    weights: Weights, source: Weights, progress: Progress
) -> tuple[tuple[Check, ...], Weights | None]:
    """Compare config and bits with `source`; also return it, if it is the same model."""
    mine, other = weights.config.to_dict(), source.config.to_dict()
    differing = [key for key in mine if mine[key] != other[key]]
    if differing:
        key = differing[0]
        detail = f"{key} is {mine[key]!r}; the source has {other[key]!r}"
        return (Check("config", "fail", detail, {"differing": differing}),), None
    same = Check("config", "pass", "the source has the same")
    return (same, bit_check(weights, source, progress)), source


def bit_check(weights: Weights, source: Weights, progress: Progress) -> Check:
    """Round `source` and compare every stored bit."""
    names = list(weights)
    differences = []
    for done, weight in enumerate(names, start=1):
        difference = _compare(weights, source, weight)
        if difference.values or difference.scales:
            differences.append(difference)
        progress("rounding the source", done, len(names))
    data = {"differing": {d.name: [d.values, d.scales] for d in differences}}
    if not differences:
        detail = f"all {len(names)} weights are the rounded source, bit for bit"
        return Check("bits", "pass", detail, data)
    first = differences[0]
    detail = (
        f"{len(differences)} of {len(names)} weights are not the rounded source; first "
        f"{first.name}: {first.values:,} bytes or floats and {first.scales:,} scales differ"
    )
    return Check("bits", "fail", detail, data)


def _compare(weights: Weights, source: Weights, weight: Weight) -> _Difference:
    values = scales = 0
    for start, stop in row_chunks(rows_of(weight), weight.shape[-1]):
        floats = source.floats(weight, start, stop)
        stored = weights.stored(weight, start, stop)
        if is_quantised(weight):
            integers, rounded_scales = quantize(floats)
            values += int(np.count_nonzero(pack(integers) != stored[0]))
            scales += int(np.count_nonzero(_bits(rounded_scales) != _bits(stored[1])))
        elif weight.kind == "router":
            values += int(np.count_nonzero(floats != stored[0]))
        else:
            values += int(np.count_nonzero(round_bf16(floats) != stored[0]))
    return _Difference(weight.name, values, scales)


def _bits(scales: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
    return np.ascontiguousarray(scales).view(np.uint16)
