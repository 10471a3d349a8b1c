"""What a recipe is: a model, its data, four stages, and how they run. No torch here.

What is trained (`model`, `optimizer`, `routing`, `sources`, `stages`, `seed`) decides the
weights; how it runs (`run`, `guard`, `parallel`) decides where, how fast and how safely.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from mobilemoe.config import ModelConfig
from mobilemoe.errors import MobileMoEError
from mobilemoe.recipe.stage import Stage

SourceKind = Literal["embedded", "txt", "jsonl", "parquet", "hf"]
Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class Source:
    """Where the texts or conversations of one name come from.

    `path` is a domain of the embedded corpus ("code", "knowledge", "math", "instruct"), a glob
    of local files, or a data set id of the hub. `text_field` names the field of a document,
    `messages_field` that of a conversation (a list of {role, content}); exactly one of them is
    set, except for "embedded" and "txt". `domain` is the name under which losses are reported.
    """

    name: str
    kind: SourceKind
    path: str
    domain: str
    licence: str
    text_field: str | None = None
    messages_field: str | None = None
    subset: str | None = None
    split: str = "train"
    revision: str | None = None
    max_tokens: int | None = None

    @property
    def is_conversations(self) -> bool:
        """Whether rows are conversations, of which only the assistant's words are learnt."""
        embedded = self.kind == "embedded" and self.path == "instruct"
        return embedded or self.messages_field is not None


@dataclass(frozen=True)
class Optimizer:
    """AdamW's constants, the same in all stages; the learning rate is the stage's."""

    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1
    clip_norm: float = 1.0


@dataclass(frozen=True)
class RoutingLosses:
    """What keeps the experts in use: the bias update (arXiv 2408.15664), z-loss (2202.08906)."""

    bias_update_rate: float = 1e-3
    z_loss: float = 1e-4


@dataclass(frozen=True)
class Run:
    """How the run uses its machine; nothing here changes what is trained.

    `micro_batch_rows` rows go through the model at a time (None: all that a device has of a
    step). `device` "auto" takes a GPU if there is one. `threads` None takes the allowed cores.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Precision = "fp32"
    micro_batch_rows: int | None = None
    compile: bool = False
    activation_checkpointing: bool = False
    threads: int | None = None
    tokenizer_workers: int = 2
    save_every_seconds: float = 60.0
    tracker: Literal["none", "trackio", "wandb"] = "none"


@dataclass(frozen=True)
class Guard:
    """When a step is refused, and when the run goes back.

    A step is skipped if its loss or gradient is not finite, if its loss exceeds the median of
    the last `window` steps by more than `max_loss_jump` nats, or its gradient norm exceeds
    theirs by more than `max_grad_factor` times. After `max_skips` in a row the run returns to
    the last good checkpoint. An expert load above `collapse_load` times the mean for `window`
    steps, on average, raises the alarm.
    """

    window: int = 50
    max_loss_jump: float = 2.0
    max_grad_factor: float = 20.0
    max_skips: int = 5
    max_rollbacks: int = 3
    collapse_load: float = 12.0


@dataclass(frozen=True)
class Parallel:
    """How many devices share the experts, and when a silent rank counts as hung.

    The rest of the model is sharded over all ranks (FSDP2); `expert_parallel` of them share one
    set of experts, each holding E / `expert_parallel`.
    """

    expert_parallel: int = 1
    hang_timeout_s: float = 45.0


@dataclass(frozen=True)
class Recipe:
    """Everything that `mobilemoe train` needs to know.

    `tokenizer` is "embedded" (trained on the embedded corpus), a folder, or a hub id.

    Raises:
        MobileMoEError: naming the table, the field, its value and what is allowed.
    """

    name: str
    model: ModelConfig
    seed: int
    tokenizer: str
    sources: Mapping[str, Source]
    optimizer: Optimizer
    routing: RoutingLosses
    stages: tuple[Stage, ...]
    run: Run = field(default_factory=Run)
    guard: Guard = field(default_factory=Guard)
    parallel: Parallel = field(default_factory=Parallel)

    def stage(self, name: str) -> Stage:
        """Return the stage called `name`.

        Raises:
            MobileMoEError: if there is none.
        """
        for stage in self.stages:
            if stage.name == name:
                return stage
        allowed = ", ".join(stage.name for stage in self.stages)
        raise MobileMoEError(f"recipe {self.name}: no stage {name!r}; allowed: {allowed}")
