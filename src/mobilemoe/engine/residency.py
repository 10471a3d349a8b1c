"""Running a model with only a part of its routed experts in memory.

The hottest experts of a routing trace are pinned, within a share of the budget; the rest of the
budget holds the most recently used others, and every other expert is read from the file when a
layer has chosen it. Logits do not change by a bit. Without a trace nothing is pinned.

L layers that route, E experts.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import Any

from mobilemoe.config import ModelConfig
from mobilemoe.engine.checks import is_integer, require
from mobilemoe.engine.footprint import expert_bytes
from mobilemoe.engine.routing import RoutingTrace
from mobilemoe.weights import WeightFormat

# Of the budget, for the pinned experts: what is hot over many prompts and what is in use in this
# one are both worth keeping, and neither is known beforehand.
PINNED_SHARE = 0.5
RANGES = 4  # of an expert in an INT4 file: two tensors of nibbles and two of scales


@dataclass(frozen=True)
class Residency:
    """What `resident` has cost since loading; of each layer, chosen experts count once a chunk.

    `bytes_read` came from the disk or, if other programs left them there, from its cache.
    `wait_seconds` is the time that computing stood still for it. Bytes are whole pages.
    """

    hits: int
    misses: int
    evictions: int
    bytes_read: int
    wait_seconds: float
    resident_bytes: int
    pinned_bytes: int
    peak_bytes: int
    budget_bytes: int

    @property
    def hit_rate(self) -> float:
        """The share of chosen experts that were in memory; 1 before the first choice."""
        chosen = self.hits + self.misses
        return self.hits / chosen if chosen else 1.0

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers by name, the hit rate among them."""
        return {**vars(self), "hit_rate": self.hit_rate}


def smallest_resident(config: ModelConfig, weight_format: WeightFormat) -> int:
    """Return the least `resident`: all experts of one layer, which a long prompt may choose."""
    layers = len(routed_layers(config))
    if not layers:
        return 0
    return expert_bytes(config, weight_format) // layers + 2 * RANGES * mmap.PAGESIZE


def routed_layers(config: ModelConfig) -> list[int]:
    """Return the indices of the L layers that route."""
    return [i for i in range(config.num_hidden_layers) if config.is_moe_layer(i)]


def bookkeeping_bytes(file_bytes: int) -> int:
    """Return what the table of the files' pages takes, at two bytes each."""
    return 2 * (-(-file_bytes // mmap.PAGESIZE))


def check_resident(resident: object, config: ModelConfig, weight_format: WeightFormat) -> None:
    """Refuse a budget that is no number of bytes, or that no layer fits into.

    Raises:
        MobileMoEError: saying what is allowed.
    """
    hint = "leave it out to keep all weights in memory"
    require(config.is_moe, "resident", resident, "None (the model routes nothing)", hint)
    least = smallest_resident(config, weight_format)
    valid = is_integer(resident) and isinstance(resident, int) and least <= resident < 2**63
    allowed = f"bytes, {least} (the routed experts of one layer) or more"
    require(valid, "resident", resident, allowed, hint)


def pinned_experts(
    trace: RoutingTrace | None, config: ModelConfig, weight_format: WeightFormat, resident: int
) -> list[tuple[int, int]]:
    """Return the layers and experts to pin: the hottest of `trace` that their share holds."""
    if trace is None:
        return []
    layers = routed_layers(config)
    trace.check(len(layers), config.num_local_experts)
    one = expert_bytes(config, weight_format) // (len(layers) * config.num_local_experts)
    room = resident - smallest_resident(config, weight_format)
    room = min(room, int(PINNED_SHARE * resident))
    count = room // (one + 2 * RANGES * mmap.PAGESIZE)
    return [(layers[layer], expert) for layer, expert in trace.hottest(count)]
