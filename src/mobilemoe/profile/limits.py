"""Which models fit under the memory limits of this process.

A file larger than the memory still runs, slowly, as long as what the engine writes (KV cache,
buffers) fits: its pages are dropped and read again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mobilemoe.config import ModelConfig
from mobilemoe.engine.footprint import model_bytes, session_bytes
from mobilemoe.engine.memory_limits import MemoryLimits

Verdict = Literal["fits", "partly paged", "does not fit", "unknown"]

PRESET_NAMES = ("S", "M", "L", "nano")
CONTEXTS = (1024, 4096, 8192)


@dataclass(frozen=True)
class Fit:
    """Whether a preset runs with a context: bytes of its INT4 file, and beside it."""

    preset: str
    context: int
    file_bytes: int
    private_bytes: int
    verdict: Verdict


def what_fits(limits: MemoryLimits, threads: int) -> tuple[Fit, ...]:
    """Judge each preset at each context that it has, run in INT4 with int8 activations."""
    fits = []
    for name in PRESET_NAMES:
        config = ModelConfig.preset(name)
        for context in CONTEXTS:
            if context <= config.max_position_embeddings:
                fits.append(_fit(name, config, context, limits, threads))
    return tuple(fits)


def _fit(name: str, config: ModelConfig, context: int, limits: MemoryLimits, threads: int) -> Fit:
    file_bytes = config.weight_bytes("int4")
    private_bytes = model_bytes(config) + session_bytes(config, context, threads)
    return Fit(name, context, file_bytes, private_bytes, verdict(file_bytes, private_bytes, limits))


def verdict(file_bytes: int, private_bytes: int, limits: MemoryLimits) -> Verdict:
    """Judge a mapped file and the private memory beside it, under every limit."""
    if not limits.limits:
        return "unknown"
    result: Verdict = "fits"
    for limit in limits.limits:
        if file_bytes + private_bytes <= limit.room:
            continue
        if private_bytes > limit.room or not limit.maps_files:
            return "does not fit"
        result = "partly paged"
    return result
