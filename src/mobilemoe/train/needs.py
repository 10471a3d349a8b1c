"""What a run will need, before it starts: bytes of memory on one device, bytes on the disk.

Memory is that of the fullest moment of a step; what data preparation needs is not counted. On
the disk it is what is in a run folder at its fullest, its data left out: their size is not known
before they are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mobilemoe.plan.cluster import Layout, counted_states, stage_memory
from mobilemoe.plan.cluster.activations import layer_bytes_per_token
from mobilemoe.recipe import Recipe, Stage
from mobilemoe.train.loss import CHUNK_LOGITS, MIN_ROWS

FLOAT = 4
# What torch loads late, and small objects.
LIBRARIES = 64 << 20
# Lines of the journal: a step with its losses by domain, and the loads of 200 events a stage.
STEP_LINE, LOADS_PER_STAGE, LOAD_DIGITS = 600, 200, 8
# Complete states that a stage leaves: one file; with several processes, two checkpoints more.
STATES_ALONE, STATES_SHARDED = 1, 3
# The checkpoints that a run ends with: BF16 after mid-training and SFT, INT4 after QAT.
EXPORTED_BF16 = ("midtrain", "sft")


@dataclass(frozen=True)
class Need:
    """Bytes by purpose."""

    parts: Mapping[str, int]

    @property
    def total(self) -> int:
        """The sum of all parts."""
        return sum(self.parts.values())

    @property
    def largest(self) -> str:
        """The name of the largest part."""
        return max(self.parts, key=lambda part: self.parts[part])


def gpu_memory(recipe: Recipe, stage: Stage, layout: Layout) -> Need:
    """Return what one GPU holds at most while it trains `stage`."""
    return _grouped(_planned(recipe, stage, layout))


def cpu_memory(recipe: Recipe, stage: Stage, layout: Layout) -> Need:
    """Return by how much one process that computes on a CPU grows while it trains `stage`.

    Within a factor of 1.5 of what was measured, mostly above it.
    """
    parts = _planned(recipe, stage, layout)
    model, tokens = recipe.model, layout.micro_tokens(stage)
    per_layer = (
        sum(layer_bytes_per_token(model, layer, layout, stage).values())
        for layer in range(model.num_hidden_layers)
    )
    parts["backward pass"] = round(tokens * max(per_layer))
    parts["loss"] = _cpu_loss(recipe, tokens)
    parts["framework"] = LIBRARIES
    return _grouped(parts)


def _planned(recipe: Recipe, stage: Stage, layout: Layout) -> dict[str, int]:
    states = counted_states(recipe.model, layout)
    return dict(stage_memory(recipe.model, layout, stage, states).parts)


def _cpu_loss(recipe: Recipe, tokens: int) -> int:
    """One chunk of logits and of their gradient; gradients of states and head."""
    V, D = recipe.model.vocab_size, recipe.model.hidden_size
    rows = min(tokens, max(MIN_ROWS, CHUNK_LOGITS["cpu"] // V))
    return FLOAT * (2 * rows * V + 2 * tokens * D + V * D)


def _grouped(parts: Mapping[str, int]) -> Need:
    """Add up what belongs together; nothing that is zero."""
    grouped: dict[str, int] = {}
    for name, size in parts.items():
        group = name.partition(":")[0]
        grouped[group] = grouped.get(group, 0) + size
    return Need({name: size for name, size in grouped.items() if size})


def state_bytes(recipe: Recipe) -> int:
    """Return the bytes of a training state: weights and two moments as float32."""
    return 3 * FLOAT * recipe.model.total_params


def disk(recipe: Recipe, ranks: int = 1) -> Need:
    """Return what the run folder holds at its fullest, data left out.

    Every stage leaves its state; while one is saved, the new file stands beside the old one.
    """
    model, state = recipe.model, state_bytes(recipe)
    names = [stage.name for stage in recipe.stages]
    left = STATES_ALONE if ranks == 1 else STATES_SHARDED
    exported = sum(model.weight_bytes("bf16") for name in names if name in EXPORTED_BF16)
    exported += model.weight_bytes("int4") if "qat" in names else 0
    return Need(
        {
            "training states": left * len(names) * state,
            "the state being written": state,
            "checkpoints": exported,
            "logs": sum(_log_bytes(recipe, stage) for stage in recipe.stages),
        }
    )


def _log_bytes(recipe: Recipe, stage: Stage) -> int:
    loads = recipe.model.num_hidden_layers * recipe.model.num_local_experts * LOAD_DIGITS
    return stage.steps * STEP_LINE + LOADS_PER_STAGE * loads
