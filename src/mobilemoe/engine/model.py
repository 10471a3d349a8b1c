"""A checkpoint, INT4 or BF16, ready to run: `load` and `Model`.

T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import numpy.typing as npt

from mobilemoe.checkpoint import Checkpoint, Tokenizer, open_checkpoint
from mobilemoe.config import ModelConfig
from mobilemoe.engine.checks import is_integer, require
from mobilemoe.engine.generation import Request, TextOutput, Token, generate_tokens
from mobilemoe.engine.native import instruction_set, native_errors, native_module
from mobilemoe.engine.plan import MemoryPlan, check_plan, plan_memory
from mobilemoe.engine.probe import LayerProbe
from mobilemoe.engine.residency import Residency, check_resident, pinned_experts
from mobilemoe.engine.routing import RoutingTrace
from mobilemoe.engine.sampling import Sampling
from mobilemoe.engine.session import Session
from mobilemoe.engine.start_line import StartLine, start_line
from mobilemoe.engine.stops import StopMatcher
from mobilemoe.engine.threads import MAX_THREADS, default_threads
from mobilemoe.errors import CheckpointError, MobileMoEError

if TYPE_CHECKING:
    from mobilemoe.engine import _native

Activations = Literal["int8", "fp32"]

DEFAULT_CONTEXT = 8192
KERNELS = ("auto", "portable", "avx2")


def load(
    path: str | Path,
    threads: int | None = None,
    context: int | None = None,
    activations: Activations | None = None,
    kernel: str = "auto",
    revision: str | None = None,
    memory_limit: int | None = None,
    resident: int | None = None,
    routing_trace: RoutingTrace | str | Path | None = None,
    announce: Callable[[StartLine], None] | None = None,
) -> Model:
    """Open a checkpoint, INT4 or BF16, for running; weights stay in their files.

    `path` is a folder or, as text, a model of the hub: `owner/name`, of which `revision` or
    `owner/name@revision` names a branch, tag or commit. `threads`: by default what
    `threads.thread_plan` says. `context`: tokens per session, by default 8192 or what the model
    allows. `activations`: "int8" is the fast mode, "fp32" the exact one; by default "int8" for
    INT4 weights, and "fp32", the only mode they run with, for BF16 weights. `kernel`: the
    instruction set, "auto" for the best one of this CPU.

    `memory_limit`: bytes that the process may take; by default what the system allows (free
    memory, control group, address space). `resident`: bytes of the routed experts that are kept
    in memory; the others are read from the file when they are chosen. The hottest experts of
    `routing_trace`, or of the file of that name, are then pinned, and without one none
    (`engine.residency`). `announce` is called with the start line before any weight is mapped,
    and before a plan above the limit is refused.

    Raises:
        CheckpointError: if the folder or one of its files is missing or damaged, or the hub
            refuses.
        MobileMoEError: for an argument outside its range, a memory plan above its limit, or a
            missing native module.
    """
    checkpoint = open_checkpoint(path, revision)
    threads = default_threads() if threads is None else threads
    longest = checkpoint.config.max_position_embeddings
    context = min(DEFAULT_CONTEXT, longest) if context is None else context
    activations = _default_activations(checkpoint) if activations is None else activations
    _check_arguments(threads, context, longest, kernel)
    _check_activations(activations, checkpoint)
    _check_path(str(checkpoint.folder))
    pins = _pinned(checkpoint, resident, routing_trace)
    int8 = activations == "int8"
    plan = plan_memory(checkpoint, context, threads, int8, resident, memory_limit)
    if announce is not None:
        announce(start_line(checkpoint, activations, instruction_set(kernel), threads, plan))
    check_plan(plan)
    native = _open_native(checkpoint, threads, kernel)
    if resident is not None:
        with native_errors():
            native.limit_experts(resident, pins)
    return Model(checkpoint, native, context, activations, plan)


class Model:
    """A loaded model; `load` makes it. Immutable: every call works on a session of its own."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        native: _native.Model,
        context: int,
        activations: Activations,
        plan: MemoryPlan,
    ) -> None:
        self._checkpoint = checkpoint
        self._native = native
        self._context = context
        self._activations: Activations = activations
        self._plan = plan

    @property
    def config(self) -> ModelConfig:
        """What the model is."""
        return self._checkpoint.config

    @property
    def folder(self) -> Path:
        """Where its files are; of a model of the hub, in the hub's cache."""
        return self._checkpoint.folder

    @property
    def threads(self) -> int:
        """Threads that compute, the caller's included."""
        return self._native.threads

    @property
    def context(self) -> int:
        """Tokens that fit into one session."""
        return self._context

    @property
    def activations(self) -> Activations:
        """Format of the activations that linear layers read: "int8" or "fp32"."""
        return self._activations

    @property
    def instruction_set(self) -> str:
        """The kernels in use: "avx2" or "portable"."""
        return self._native.instruction_set

    @property
    def memory_plan(self) -> MemoryPlan:
        """What one session was to take in memory, as planned when the model was loaded."""
        return self._plan

    def start_line(self) -> StartLine:
        """Describe what the model runs as, for a report.

        Raises:
            CheckpointError: if its files cannot be read any more.
        """
        return start_line(
            self._checkpoint, self._activations, self.instruction_set, self.threads, self._plan
        )

    def residency(self) -> Residency | None:
        """Return what keeping only `resident` bytes of experts has cost; None without a limit."""
        with native_errors():
            fields = self._native.residency()
        return None if fields is None else Residency(**fields)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The checkpoint's tokenizer.

        Raises:
            CheckpointError: if the folder has none.
        """
        return Tokenizer.from_folder(self._checkpoint.folder)

    def session(self) -> Session:
        """Return a new, empty session of this model."""
        int8 = self._activations == "int8"
        return Session(self._native, self._context, int8, self.config.vocab_size)

    def probe(self, tokens: int) -> LayerProbe:
        """Return a probe of single layers, with room for inputs of `tokens` rows.

        Raises:
            MobileMoEError: for tokens outside 1 to `config.max_position_embeddings`.
        """
        int8 = self._activations == "int8"
        layers, hidden_size = self.config.num_hidden_layers, self.config.hidden_size
        return LayerProbe(self._native, tokens, int8, layers, hidden_size)

    def logits(self, ids: Sequence[int] | npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        """Return the logits [T, V] after each of `ids`, teacher forced.

        Raises:
            MobileMoEError: for an id outside the vocabulary, no ids, or more than the context.
        """
        return self.session().append_all(ids)

    def generate(
        self,
        prompt: str | Sequence[int],
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        top_p: float = 1.0,
        top_k: int = 0,
        seed: int | None = None,
        stop: str | Sequence[str] = (),
    ) -> Iterator[Token]:
        """Continue `prompt`, text or token ids, one Token at a time.

        Text is encoded with BOS in front, once. Every id of `config.eos_token_id` ends; so does
        a stop string, which is not part of the text. The same seed gives the same tokens.

        Raises:
            MobileMoEError: at the call, for an argument outside its range or a prompt that is
                empty or longer than the context; while iterating, for non-finite logits.
        """
        sampling = Sampling(temperature, top_p, top_k)
        request = Request(max_new_tokens, sampling, seed, self.config.eos_token_id)
        output = self._text_output(StopMatcher(stop), needed=isinstance(prompt, str))
        prompt_ids = self._encode(prompt)
        return generate_tokens(self.session(), prompt_ids, request, output)

    def _text_output(self, stop: StopMatcher, needed: bool) -> TextOutput:
        has_tokenizer = (self._checkpoint.folder / "tokenizer.json").is_file()
        if not has_tokenizer and not needed and not stop:
            return TextOutput(None)
        return TextOutput(self.tokenizer.stream(), stop)

    def _encode(self, prompt: str | Sequence[int]) -> list[int]:
        hint = "a prompt needs at least one token"
        valid = not isinstance(prompt, bytes | bytearray) and len(prompt) > 0
        require(valid, "prompt", prompt, "text or token ids", hint)
        ids = self.tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)
        bos = self.config.bos_token_id
        if isinstance(prompt, str) and ids[:2] == [bos, bos]:
            ids = ids[1:]  # the text began with BOS itself
        if len(ids) > self._context:
            raise MobileMoEError(
                f"prompt has {len(ids)} tokens; allowed: at most the context, {self._context}",
                hint=f"shorten the prompt, or load with context up to "
                f"{self.config.max_position_embeddings}",
            )
        return ids


def _open_native(checkpoint: Checkpoint, threads: int, kernel: str) -> _native.Model:
    """Map the files and start the threads."""
    shards = checkpoint.shards
    if len(shards) > 1:
        checkpoint.tensors()  # compares the index with the files, which the engine never sees
    with native_errors():
        native: _native.Model = native_module().Model(
            [str(path) for path in shards],
            asdict(checkpoint.config),
            threads,
            kernel,
            checkpoint.weight_format,
        )
        return native


def _pinned(
    checkpoint: Checkpoint, resident: int | None, trace: RoutingTrace | str | Path | None
) -> list[tuple[int, int]]:
    """Check `resident` and its trace; return the experts to pin."""
    if resident is None:
        if trace is not None:
            raise MobileMoEError(
                "routing_trace is given without resident",
                hint="a trace tells which experts to keep; say with resident how much of them",
            )
        return []
    config, weight_format = checkpoint.config, checkpoint.weight_format
    check_resident(resident, config, weight_format)
    if isinstance(trace, str | Path):
        trace = RoutingTrace.read(trace)
    return pinned_experts(trace, config, weight_format, resident)


def _default_activations(checkpoint: Checkpoint) -> Activations:
    return "int8" if checkpoint.weight_format == "int4" else "fp32"


def _check_arguments(threads: int, context: int, longest: int, kernel: str) -> None:
    valid = is_integer(threads) and 1 <= threads <= MAX_THREADS
    hint = "leave it out to use the cores that this process may use"
    require(valid, "threads", threads, f"1 to {MAX_THREADS}", hint)
    valid = is_integer(context) and 1 <= context <= longest
    hint = "leave it out for the model's own context"
    require(valid, "context", context, f"1 to {longest} (max_position_embeddings)", hint)
    require(kernel in KERNELS, "kernel", kernel, ", ".join(KERNELS), "auto picks the best one")


def _check_activations(activations: str, checkpoint: Checkpoint) -> None:
    allowed = ", ".join(get_args(Activations))
    valid = activations in get_args(Activations)
    require(valid, "activations", activations, allowed, "int8 is fast, fp32 is exact")
    valid = activations == "fp32" or checkpoint.weight_format == "int4"
    hint = "leave it out, or convert the checkpoint to INT4 with `mobilemoe convert`"
    require(valid, "activations", activations, "fp32 (the weights are BF16)", hint)


def _check_path(path: str) -> None:
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise CheckpointError(
            f"{path!r}: the path is not UTF-8", hint="rename the folder; the engine needs UTF-8"
        ) from error
