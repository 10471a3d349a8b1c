"""Timings turned into the rows of a result: speeds, percentiles, shares of the ceilings.

Bytes per token are what a step must read at least: each weight that it uses once, and the keys
and values of its depth. Multiply-adds per token are those of the matrices and of attention. A
decode step is held against the read bandwidth, a prompt against the multiply-add peak.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from mobilemoe.checkpoint import Checkpoint
from mobilemoe.profile.ceilings import Ceilings
from mobilemoe.profile.measure import Timing

Q8_0_BYTES = 34 / 32  # per element: a float16 scale for 32 of them


@dataclass(frozen=True)
class Row:
    """One case on one model.

    `share_of_ceiling` is the share of `ceiling` (a field of Ceilings) at the median speed.
    `unique_experts_per_token` is a mean over layers, None for a dense model; in a prompt the
    tokens share experts, so it is below top-k. `ttft_ms` is for prompts, `tpot_ms` for decode.
    `macs_per_byte` is the operational intensity.
    """

    kind: str
    tokens: int
    depth: int
    threads: int
    tok_s: float
    tok_s_all: tuple[float, ...]
    share_of_ceiling: float
    ceiling: str
    bytes_per_token: float
    macs_per_token: float
    macs_per_byte: float
    unique_experts_per_token: float | None
    ttft_ms: dict[str, float] | None
    tpot_ms: dict[str, float] | None
    settings: str | None


def make_row(
    timing: Timing, checkpoint: Checkpoint, ceilings: Ceilings, experts: float | None = None
) -> Row:
    """Return the row of `timing`; `experts` stands in where the engine does not count them."""
    case, config = timing.case, checkpoint.config
    experts = timing.experts if timing.experts is not None else experts
    decode = case.kind == "decode"
    speeds = tuple(case.tokens / sum(seconds) for seconds in timing.rounds)
    read = _bytes_per_token(timing, checkpoint, experts)
    positions = case.depth + (case.tokens + 1) / 2  # a token attends to itself, too
    macs = config.macs_per_token(positions, head=decode)
    ceiling = _ceiling_name(timing)
    work = read if decode else macs
    appended = 1 if decode else case.tokens
    unique = experts / appended if experts is not None and config.is_moe else None
    return Row(
        kind=case.kind,
        tokens=case.tokens,
        depth=case.depth,
        threads=case.threads,
        tok_s=median(speeds),
        tok_s_all=speeds,
        share_of_ceiling=1e-9 * work * median(speeds) / getattr(ceilings, ceiling),
        ceiling=ceiling,
        bytes_per_token=read,
        macs_per_token=macs,
        macs_per_byte=macs / read,
        unique_experts_per_token=unique,
        ttft_ms=None if decode else _percentiles(timing, (50, 95)),
        tpot_ms=_percentiles(timing, (50, 95, 99)) if decode else None,
        settings=timing.settings,
    )


def _bytes_per_token(timing: Timing, checkpoint: Checkpoint, experts: float | None) -> float:
    case, config = timing.case, checkpoint.config
    appended = 1 if case.kind == "decode" else case.tokens
    if experts is None:  # as if every token of the append chose other ones
        experts = min(config.num_local_experts, config.num_experts_per_tok * appended)
    weights = config.step_weight_bytes(checkpoint.weight_format, experts)
    # A decode round grows while it runs: its mean depth counts.
    positions = case.depth + (case.tokens + 1) / 2 if appended == 1 else case.context
    return (weights + positions * _kv_bytes(timing, checkpoint)) / appended


def _kv_bytes(timing: Timing, checkpoint: Checkpoint) -> float:
    kv_format, config = timing.ready["kv_format"], checkpoint.config
    if kv_format == "q8_0":  # of llama.cpp; its scales are in the blocks
        return config.kv_bytes_per_token("fp16") / 2 * Q8_0_BYTES
    return config.kv_bytes_per_token(kv_format)


def _ceiling_name(timing: Timing) -> str:
    if timing.case.kind == "decode":
        return "read_gb_s"
    return "int8_gmac_s" if timing.ready["activations"] == "int8" else "fp32_gmac_s"


def _percentiles(timing: Timing, percents: tuple[int, ...]) -> dict[str, float]:
    """Return percentiles of the milliseconds of single appends, over all rounds."""
    milliseconds = [1e3 * second for seconds in timing.rounds for second in seconds]
    found: list[Any] = np.percentile(milliseconds, percents).tolist()
    return {f"p{percent}": value for percent, value in zip(percents, found, strict=True)}
