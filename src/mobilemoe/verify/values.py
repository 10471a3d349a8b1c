"""Section 2: numbers that a sound file cannot hold, found before they reach a user.

N elements of a chunk, flattened.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from mobilemoe.checkpoint.tensor_file import to_float32
from mobilemoe.verify.files import Stored, Weights, row_chunks, rows_of
from mobilemoe.verify.progress import Progress
from mobilemoe.verify.receipt import Check
from mobilemoe.weights import GROUP_SIZE

LEVELS = tuple(range(-8, 8))
# Rounded weights crowd around 0; an evenly spread format still has 7 of 16 levels within 3. Bits
# read in another code (offset by 8, say) put the crowd at the ends.
CENTRE = 3
LEAST_CENTRE_SHARE = 1 / 3


@dataclass
class _Findings:
    """What has been seen so far."""

    not_finite: dict[str, int] = field(default_factory=dict)
    negative_scales: dict[str, int] = field(default_factory=dict)
    smallest_scale: float = np.inf
    largest_scale: float = 0.0
    zero_groups: int = 0
    groups: int = 0
    counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(16, np.int64))


def value_checks(weights: Weights, progress: Progress) -> list[Check]:
    """Read every number once and judge what was seen."""
    found = _Findings()
    total, done = weights.tensors.tensor_bytes, 0
    for weight in weights:
        names = weights.names(weight)
        for start, stop in row_chunks(rows_of(weight), weight.shape[-1]):
            stored = weights.stored(weight, start, stop)
            if len(names) == 2:
                _see_int4(found, names[1], *stored)
            else:
                _see_floats(found, names[0], stored[0], weights.tensors.dtype(names[0]))
            done += sum(rows.nbytes for rows in stored)
            progress("reading values", done, total)
    checks = [_finite_check(found)]
    return checks if weights.weight_format == "bf16" else checks + _int4_checks(found)


def _see_floats(found: _Findings, name: str, values: Stored, dtype: str) -> None:
    wrong = int(np.count_nonzero(~np.isfinite(to_float32(values, dtype))))
    if wrong:
        found.not_finite[name] = found.not_finite.get(name, 0) + wrong


def _see_int4(found: _Findings, scale_name: str, packed: Stored, scales: Stored) -> None:
    _see_floats(found, scale_name, scales, "F16")
    wide = scales.astype(np.float32).ravel()
    negative = int(np.count_nonzero(wide < 0))
    if negative:
        found.negative_scales[scale_name] = found.negative_scales.get(scale_name, 0) + negative
    positive = wide[wide > 0]
    if positive.size:
        found.smallest_scale = min(found.smallest_scale, float(positive.min()))
        found.largest_scale = max(found.largest_scale, float(positive.max()))
    empty = ~packed.reshape(-1, GROUP_SIZE // 2).any(-1)
    found.zero_groups += int(np.count_nonzero(empty | (wide == 0)))
    found.groups += wide.size
    found.counts += nibble_counts(packed)


def nibble_counts(packed: Stored) -> npt.NDArray[np.int64]:
    """Return how often each of -8 .. 7 occurs in packed bytes."""
    byte_counts = np.bincount(packed.ravel(), minlength=256).reshape(16, 16)
    nibbles = byte_counts.sum(0) + byte_counts.sum(1)
    counts: npt.NDArray[np.int64] = np.roll(nibbles, 8)  # 8 .. 15 are -8 .. -1
    return counts


def _finite_check(found: _Findings) -> Check:
    if not found.not_finite:
        return Check("finite", "pass", "every scale, norm, router, bias and float is finite")
    name, count = next(iter(found.not_finite.items()))
    others = len(found.not_finite) - 1
    more = f", and {others} more tensors" if others else ""
    detail = f"{name} has {count} NaN or infinite values{more}"
    return Check("finite", "fail", detail, {"tensors": found.not_finite})


def _int4_checks(found: _Findings) -> list[Check]:
    share = found.zero_groups / found.groups
    zero_detail = f"{share:.2%} of {found.groups:,} groups of 32 are all zeros"
    zero_data = {"groups": found.groups, "zero_groups": found.zero_groups}
    all_zero = found.zero_groups == found.groups
    return [
        Check("zero groups", "fail" if all_zero else "pass", zero_detail, zero_data),
        _scale_check(found),
        _histogram_check(found.counts),
    ]


def _scale_check(found: _Findings) -> Check:
    data = {"smallest": found.smallest_scale, "largest": found.largest_scale}
    if found.negative_scales:
        name, count = next(iter(found.negative_scales.items()))
        return Check("scales", "fail", f"{name} has {count} negative scales", data)
    if found.largest_scale == 0:
        return Check("scales", "fail", "every scale is zero", data)
    detail = f"{found.smallest_scale:.2e} to {found.largest_scale:.2e}, leaving zeros out"
    return Check("scales", "pass", detail, data)


def _histogram_check(counts: npt.NDArray[np.int64]) -> Check:
    total = max(1, int(counts.sum()))
    data = {"levels": {str(level): int(n) for level, n in zip(LEVELS, counts, strict=True)}}
    unused = [level for level, n in zip(LEVELS, counts, strict=True) if n == 0]
    centre = sum(int(counts[level + 8]) for level in range(-CENTRE, CENTRE + 1)) / total
    detail = f"{centre:.0%} of the integers within {CENTRE} of zero"
    if centre < LEAST_CENTRE_SHARE:
        return Check("integers", "fail", f"only {detail}: are the nibbles in another code?", data)
    if unused:
        return Check("integers", "info", f"{detail}; {unused} never occur", data)
    return Check("integers", "pass", f"all of -8 to 7 occur; {detail}", data)
