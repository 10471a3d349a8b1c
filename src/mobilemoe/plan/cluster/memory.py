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
from mobilemoe.plan.cluster.shards import padded_by_part, units
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

    `source` says who counted: this arithmetic, or training's own sharding on fake devices.
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
        "gathered weights": _gathered(config, layout, stage),
        "gathered gradients": _gathered_gradients(config, layout, stage),
    }
    if stage.fake_quant:
        parts["rounded weights"] = _rounded(config, layout)
    kept = activation_bytes(config, layout, stage)
    parts |= {f"activations: {part}": size for part, size in kept.items()}
    parts["loss"] = _loss(config, layout, stage)
    parts["communication buffers"] = _buffers(config, layout, stage)
    parts["framework"] = round(FRAMEWORK.value)
    return Memory(parts)


def _layers(config: ModelConfig, layout: Layout) -> list[int]:
    """Return the elements of each layer that are gathered and given up again, largest first."""
    sizes: dict[str, int] = {}
    for unit in units(config, layout):
        if not unit.stays:
            sizes[unit.layer] = sizes.get(unit.layer, 0) + unit.full_size
    return sorted(sizes.values(), reverse=True)


def _staying(config: ModelConfig, layout: Layout) -> int:
    return sum(unit.full_size for unit in units(config, layout) if unit.stays)


def _gathered(config: ModelConfig, layout: Layout, stage: Stage) -> int:
    """Hold what stays whole, the layer that computes and the one being fetched.

    One GPU gathers nothing, but autocast keeps a bfloat16 copy of what products read.
    """
    layers = _layers(config, layout)
    if layout.gpus == 1:
        casts = layout.compute_bytes < WIDE_BYTES and not stage.fake_quant
        return sum(layers) * layout.compute_bytes if casts else 0
    fetched = sum(layers[:2]) * layout.gathered_bytes(stage)
    return _staying(config, layout) * WIDE_BYTES + fetched


def _gathered_gradients(config: ModelConfig, layout: Layout, stage: Stage) -> int:
    """One layer's whole gradient, or the embedding's: from the head and from the lookup."""
    layer = _layers(config, layout)[0] * layout.gathered_bytes(stage)
    return max(layer, 2 * config.vocab_size * config.hidden_size * WIDE_BYTES)


def _rounded(config: ModelConfig, layout: Layout) -> int:
    """Fake quantisation keeps each rounded weight for a micro-batch, and autocast its cast."""
    cast = 0 if layout.compute_bytes == WIDE_BYTES else layout.compute_bytes
    whole = sum(_layers(config, layout)) * (WIDE_BYTES + cast)
    return whole + config.vocab_size * config.hidden_size * WIDE_BYTES


def _loss(config: ModelConfig, layout: Layout, stage: Stage) -> int:
    """One chunk of logits, log-probabilities and their gradient; gradients of states and head.

    The head is also cast, if products read another type than float32.
    """
    c, V, D = layout.compute_bytes, config.vocab_size, config.hidden_size
    tokens = layout.micro_tokens(stage)
    rows = min(tokens, max(MIN_CHUNK_ROWS, CHUNK_LOGITS // V))
    chunk = rows * V * (c + WIDE_BYTES + c)
    cast = 0 if c == WIDE_BYTES else V * D * c
    return chunk + 2 * tokens * D * c + V * D * WIDE_BYTES + cast


def _buffers(config: ModelConfig, layout: Layout, stage: Stage) -> int:
    """Flat copies of the largest unit as it arrives and leaves; rows to and from other experts."""
    if layout.gpus == 1:
        return 0
    flat = max(
        unit.padded_size
        * ((WIDE_BYTES if unit.stays else layout.gathered_bytes(stage)) + WIDE_BYTES)
        for unit in units(config, layout)
    )
    if layout.expert_parallel == 1:
        return flat
    rows = expert_rows_per_token(config, layout, stage.capacity_factor)
    sent_and_received = 2 * rows * layout.micro_tokens(stage) * config.hidden_size
    return flat + round(sent_and_received * layout.compute_bytes)
