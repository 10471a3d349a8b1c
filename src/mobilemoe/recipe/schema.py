"""The parts of a recipe besides its model and its stages. No torch here.

What is trained (`model`, `optimizer`, `routing`, `sources`, `stages`, `seed`) decides the
weights; how it runs (`run`, `guard`, `parallel`) decides where, how fast and how safely.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mobilemoe.recipe.checks import Range, check_fields, check_name, require

EMBEDDED = ("code", "knowledge", "math", "instruct")  # what the embedded corpus is made of
GENERATED = ("math", "instruct")  # wholly or partly made up: as much as is asked for
SourceKind = Literal["embedded", "txt", "jsonl", "parquet", "hf"]
Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class Source:
    """Where the texts or conversations of one name come from.

    `path` is a domain of the embedded corpus ("code", "knowledge", "math", "instruct"), a glob
    of local files, or a data set id of the hub. `text_field` names the field of a document,
    `messages_field` that of a conversation (a list of {role, content}); exactly one of them is
    set, except for "embedded" and "txt". `domain` is the name under which losses are reported.
    `subset`, `split` and `revision` are the hub's words; `max_tokens` None takes all there is.
    `generate` is how many problems ("math") or worked solutions ("instruct") the embedded corpus
    makes up.

    Raises:
        MobileMoEError: naming `sources`, the source, the field, its value and what is allowed.
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
    generate: int | None = None

    def __post_init__(self) -> None:
        table = f"sources.{self.name}"
        check_fields(self, table, {"max_tokens": Range(1, 10**15), "generate": Range(1, 10**7)})
        check_name("a source's name", self.name)
        check_name(f"{table}.domain", self.domain)
        require(bool(self.path), f"{table}.path", self.path, "a text that is not empty")
        _check_content(self, table)
        _check_hub_words(self, table)
        _check_generate(self, table)

    @property
    def is_conversations(self) -> bool:
        """Whether rows are conversations, of which only the assistant's words are learnt."""
        embedded = self.kind == "embedded" and self.path == "instruct"
        return embedded or self.messages_field is not None


@dataclass(frozen=True)
class Optimizer:
    """AdamW's constants, the same in all stages; the learning rate is the stage's.

    Raises:
        MobileMoEError: naming the field, its value and what is allowed.
    """

    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1
    clip_norm: float = 1.0

    def __post_init__(self) -> None:
        check_fields(self, "optimizer", _OPTIMIZER)


@dataclass(frozen=True)
class RoutingLosses:
    """What keeps the experts in use: the bias update (arXiv 2408.15664), z-loss (2202.08906).

    Raises:
        MobileMoEError: naming the field, its value and what is allowed.
    """

    bias_update_rate: float = 1e-3
    z_loss: float = 1e-4

    def __post_init__(self) -> None:
        check_fields(self, "routing", {"bias_update_rate": Range(0, 1), "z_loss": Range(0, 1)})


@dataclass(frozen=True)
class Run:
    """How the run uses its machine; nothing here changes what is trained.

    `micro_batch_rows` rows go through the model at a time (None: all that a device has of a
    step). `device` "auto" takes a GPU if there is one. `threads` None takes the allowed cores.

    Raises:
        MobileMoEError: naming the field, its value and what is allowed.
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

    def __post_init__(self) -> None:
        check_fields(self, "run", _RUN)


@dataclass(frozen=True)
class Guard:
    """When a step is refused, and when the run goes back.

    A step is skipped if its loss or gradient is not finite, if its loss is more than
    `max_loss_jump` nats above the median of the last `window` steps or above a guess (log V), or
    if its gradient norm is more than `max_grad_factor` times theirs (and `clip_norm`) or above
    `max_grad_norm`.
    After `max_skips` in a row the run returns to the last good checkpoint and leaves the skipped
    steps out; more than `max_rollbacks` returns without a `window` of good steps behind the
    trouble end it. A worst expert load above `collapse_load` times the mean (or four fifths of
    E / K, the largest that routing allows), on average over `window` steps, raises the alarm.

    Raises:
        MobileMoEError: naming the field, its value and what is allowed.
    """

    window: int = 50
    max_loss_jump: float = 2.0
    max_grad_factor: float = 20.0
    max_grad_norm: float = 1000.0
    max_skips: int = 5
    max_rollbacks: int = 3
    collapse_load: float = 12.0

    def __post_init__(self) -> None:
        check_fields(self, "guard", _GUARD)


@dataclass(frozen=True)
class Parallel:
    """How many devices share the experts, and when a silent rank counts as hung.

    The rest of the model is sharded over all ranks (FSDP2); `expert_parallel` of them share one
    set of experts, each holding E / `expert_parallel`.

    Raises:
        MobileMoEError: naming the field, its value and what is allowed.
    """

    expert_parallel: int = 1
    # With the 30 s that torchrun gives a process on another machine, less than a minute.
    hang_timeout_s: float = 20.0

    def __post_init__(self) -> None:
        ranges = {"expert_parallel": Range(1, 4096), "hang_timeout_s": Range(1, 86_400)}
        check_fields(self, "parallel", ranges)


_OPTIMIZER = {
    "beta1": Range(0, 1, below=True),
    "beta2": Range(0, 1, below=True),
    "eps": Range(0, 1, above=True),
    "weight_decay": Range(0, 10),
    "clip_norm": Range(0, 10**9, above=True),
}
_RUN = {
    "micro_batch_rows": Range(1, 2**20),
    "threads": Range(1, 4096),
    "tokenizer_workers": Range(0, 1024),
    "save_every_seconds": Range(0, 86_400),
}
_GUARD = {
    "window": Range(1, 10**6),
    "max_loss_jump": Range(0, 10**9, above=True),
    "max_grad_factor": Range(1, 10**9),
    "max_grad_norm": Range(0, 10**9, above=True),
    "max_skips": Range(1, 10**6),
    "max_rollbacks": Range(0, 10**6),
    "collapse_load": Range(1, 10**6),
}


def _check_generate(source: Source, table: str) -> None:
    made = source.kind == "embedded" and source.path in GENERATED
    allowed = f"left out, except for embedded {' and '.join(GENERATED)}"
    require(source.generate is None or made, f"{table}.generate", source.generate, allowed)


def _check_content(source: Source, table: str) -> None:
    """Check which field holds the text, as far as the kind of the source says it."""
    if source.kind == "embedded":
        allowed = ", ".join(EMBEDDED)
        require(source.path in EMBEDDED, f"{table}.path", source.path, f"embedded: {allowed}")
    named = [name for name in ("text_field", "messages_field") if getattr(source, name) is not None]
    path = f"{table}.{named[0] if named else 'text_field'}"
    value = getattr(source, named[0]) if named else None
    if source.kind in ("embedded", "txt"):
        remedy = f"remove it: {source.kind!r} has no fields"
        require(not named, path, value, f"left out with kind {source.kind!r}", remedy)
        return
    allowed = f"exactly one of text_field and messages_field with kind {source.kind!r}"
    require(len(named) == 1, path, value if len(named) == 1 else " and ".join(named), allowed)
    require(bool(value), path, value, "the name of a field")


def _check_hub_words(source: Source, table: str) -> None:
    """Refuse what only a data set of the hub has."""
    for name, absent in (("subset", None), ("split", "train"), ("revision", None)):
        value = getattr(source, name)
        if source.kind == "hf":
            require(value != "", f"{table}.{name}", value, "a text that is not empty")
        else:
            allowed = f"left out with kind {source.kind!r}; it belongs to 'hf'"
            require(value == absent, f"{table}.{name}", value, allowed)
