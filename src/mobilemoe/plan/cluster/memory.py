"""What one GPU holds at the fullest moment of a stage's step, part by part, in bytes.

The parts are summed, as if all were at their largest together: true within a few percent at the
start of the last layer's backward pass, and never too small. Sharded states are float32;
gathered weights and activations are of the compute type. There is no KV cache in training.
"""

from __future__ import annotations

from dataclasses import dataclass

from mobilemoe.config import ModelConfig
from mobilemoe.plan.cluster.activations import activation_bytes, expert_rows_per_token
from mobilemoe.plan.cluster.layout import WIDE_BYTES, Layout
from mobilemoe.plan.cluster.quantity import Quantity
from mobilemoe.plan.cluster.shards import ROOT, Unit, padded_by_part, units
from mobilemoe.recipe import Stage

CHUNK_LOGITS = 2**27  # logits that the loss holds at a time on a GPU; train/loss.py, tested equal
MIN_CHUNK_ROWS = 16
FRAMEWORK = Quantity(
    "framework",
    4e9,
    "B",
    "assumed",
    "CUDA context, NCCL and cuBLAS workspaces, and fragments of the allocator",
)


@dataclass(frozen=True)
class States:
    """Bytes that a rank holds for as long as the run lasts, by part of the model.

    `source` says who counted: this arithmetic, or `fully_shard` on fake devices.
    """

    parameters: dict[str, int]
    gradients: dict[str, int]
    moments: dict[str, int]
    source: str


@dataclass(frozen=True)
class Memory:
    """Bytes of one GPU by part, the largest moment of a step."""

    parts: dict[str, int]

    @property
    def total(self) -> int:
        """The sum of all parts."""
        return sum(self.parts.values())

    @property
    def dominant(self) -> str:
        """The name of the largest part."""
        return max(self.parts, key=lambda part: self.parts[part])


def counted_states(config: ModelConfig, layout: Layout) -> States:
    """Return the sharded states by arithmetic: master weights, gradients, AdamW's two moments."""
    sizes = padded_by_part(config, layout)
    weights = {part: size * WIDE_BYTES for part, size in sizes.items()}
    moments = {part: 2 * size for part, size in weights.items()}
    return States(weights, dict(weights), moments, "arithmetic")


def stage_memory(config: ModelConfig, layout: Layout, stage: Stage, states: States) -> Memory:
    """Return what a GPU holds at most while it trains `stage`."""
    parts = {
        "parameters": sum(states.parameters.values()),
        "gradients": sum(states.gradients.values()),
        "AdamW moments": sum(states.moments.values()),
        "gathered weights": _gathered(config, layout),
        "gathered gradients": _gathered_gradients(config, layout),
    }
    if stage.fake_quant:
        parts["rounded weights"] = _rounded(config, layout)
    kept = activation_bytes(config, layout, stage)
    parts |= {f"activations: {part}": size for part, size in kept.items()}
    parts["loss"] = _loss(config, layout, stage)
    parts["communication buffers"] = _buffers(config, layout, stage)
    parts["framework"] = round(FRAMEWORK.value)
    return Memory(parts)


def _layers(config: ModelConfig, layout: Layout) -> dict[str, list[Unit]]:
    """Group the units by layer; the root is left out."""
    layers: dict[str, list[Unit]] = {}
    for unit in units(config, layout):
        if unit.name != ROOT:
            layers.setdefault(unit.name.removesuffix(" experts"), []).append(unit)
    return layers


def _root(config: ModelConfig, layout: Layout) -> Unit:
    return next(unit for unit in units(config, layout) if unit.name == ROOT)


def _gathered(config: ModelConfig, layout: Layout) -> int:
    """Hold the root for the whole step, the layer that computes and the one being fetched."""
    sizes = [sum(u.full_size for u in layer) for layer in _layers(config, layout).values()]
    largest = sorted(sizes, reverse=True)[:2]
    return (_root(config, layout).full_size + sum(largest)) * layout.compute_bytes


def _gathered_gradients(config: ModelConfig, layout: Layout) -> int:
    """One layer's whole gradient, or the root's: from the head and from the embedding."""
    sizes = [sum(u.full_size for u in layer) for layer in _layers(config, layout).values()]
    return max(max(sizes), 2 * _root(config, layout).full_size) * layout.compute_bytes


def _rounded(config: ModelConfig, layout: Layout) -> int:
    """Fake quantisation rounds each weight once per micro-batch and keeps the result."""
    return sum(unit.full_size for unit in units(config, layout)) * layout.compute_bytes


def _loss(config: ModelConfig, layout: Layout, stage: Stage) -> int:
    """One chunk of logits, log-probabilities and their gradient; gradients of states and head."""
    c, V, D = layout.compute_bytes, config.vocab_size, config.hidden_size
    tokens = layout.micro_tokens(stage)
    rows = min(tokens, max(MIN_CHUNK_ROWS, CHUNK_LOGITS // V))
    chunk = rows * V * (c + WIDE_BYTES + c)
    return chunk + 2 * tokens * D * c + V * D * c


def _buffers(config: ModelConfig, layout: Layout, stage: Stage) -> int:
    """Flat copies of the largest unit as it arrives and leaves; rows to and from other experts."""
    if layout.gpus == 1:
        return 0
    largest = max(unit.padded_size for unit in units(config, layout))
    flat = largest * (layout.compute_bytes + WIDE_BYTES)
    if layout.expert_parallel == 1:
        return flat
    rows = expert_rows_per_token(config, layout, stage.capacity_factor)
    sent_and_received = 2 * rows * layout.micro_tokens(stage) * config.hidden_size
    return flat + round(sent_and_received * layout.compute_bytes)
