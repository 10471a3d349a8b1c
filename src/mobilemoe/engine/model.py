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
from mobilemoe.engine.footprint import session_bytes
from mobilemoe.engine.generation import Request, TextOutput, Token, generate_tokens
from mobilemoe.engine.logprobs import TokenLogprob, check_top, score
from mobilemoe.engine.native import instruction_set, native_errors, native_module
from mobilemoe.engine.plan import MemoryPlan, check_plan, plan_memory
from mobilemoe.engine.probe import LayerProbe
from mobilemoe.engine.residency import Residency, check_resident, pinned_experts
from mobilemoe.engine.routing import RoutingTrace
from mobilemoe.engine.sampling import Sampling
from mobilemoe.engine.session import Ids, Session, checked_ids
from mobilemoe.engine.start_line import StartLine, start_line
from mobilemoe.engine.stops import StopMatcher
from mobilemoe.engine.threads import MAX_THREADS, default_threads
from mobilemoe.errors import CheckpointError, MobileMoEError

if TYPE_CHECKING:
    from mobilemoe.engine import _native

Activations = Literal["int8", "fp32"]
Kv = Literal["int8", "fp16", "fp32"]

DEFAULT_CONTEXT = 8192
LONGEST_INT8_HEAD = 512  # what the native cache takes
KERNELS = ("auto", "avx512", "avx2-vnni", "avx2", "portable")


def load(
    path: str | Path,
    threads: int | None = None,
    context: int | None = None,
    activations: Activations | None = None,
    kernel: str = "auto",
    revision: str | None = None,
    kv: Kv | None = None,
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
    instruction set, "auto" for the best one of this CPU. `kv`: the format of cached keys and
    values; by default "int8" with int8 activations and "fp32" in the exact mode.

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
    kv = default_kv(checkpoint.config, activations) if kv is None else kv
    _check_kv(kv, checkpoint.config)
    _check_path(str(checkpoint.folder))
    pins = _pinned(checkpoint, resident, routing_trace)
    int8 = activations == "int8"
    plan = plan_memory(checkpoint, context, threads, int8, resident, memory_limit, kv)
    if announce is not None:
        announce(start_line(checkpoint, activations, instruction_set(kernel), threads, plan))
    check_plan(plan)
    native = _open_native(checkpoint, threads, kernel)
    if resident is not None:
        with native_errors():
            native.limit_experts(resident, pins)
    return Model(checkpoint, native, context, activations, kv, plan)


class Model:
    """A loaded model; `load` makes it. Immutable: what changes is the session that a call makes
    for itself or is given.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        native: _native.Model,
        context: int,
        activations: Activations,
        kv: Kv,
        plan: MemoryPlan,
    ) -> None:
        self._checkpoint = checkpoint
        self._native = native
        self._context = context
        self._activations: Activations = activations
        self._kv: Kv = kv
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
    def kv(self) -> Kv:
        """Format of cached keys and values: "int8", "fp16" or "fp32"."""
        return self._kv

    @property
    def instruction_set(self) -> str:
        """The kernels in use, one of KERNELS but "auto"."""
        return self._native.instruction_set

    @property
    def session_bytes(self) -> int:
        """Bytes that one session takes when its context is full."""
        int8 = self._activations == "int8"
        return session_bytes(self.config, self._context, self.threads, int8, self._kv)

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
        return Session(self._native, self._context, int8, self._kv, self.config.vocab_size)

    def probe(self, tokens: int) -> LayerProbe:
        """Return a probe of single layers, with room for inputs of `tokens` rows.

        Raises:
            MobileMoEError: for tokens outside 1 to `config.max_position_embeddings`.
        """
        int8 = self._activations == "int8"
        layers, hidden_size = self.config.num_hidden_layers, self.config.hidden_size
        return LayerProbe(self._native, tokens, int8, self._kv, layers, hidden_size)

    def logits(self, ids: Ids) -> npt.NDArray[np.float32]:
        """Return the logits [T, V] after each of `ids`, teacher forced.

        Raises:
            MobileMoEError: for an id outside the vocabulary, no ids, or more than the context.
        """
        return self.session().append_all(ids)

    def logprobs(
        self, prompt: str | Ids, top: int = 0, start: int = 1, session: Session | None = None
    ) -> list[TokenLogprob]:
        """Return how likely each token of `prompt[start:]` is, given all tokens before it.

        Text is encoded as by `encode`; `start` counts tokens. Each comes with the `top`
        likeliest tokens in its place. A `session` is continued where it shares
        `prompt[: start - 1]`, and holds all but the last token afterwards. No more than a few
        rows of logits exist at a time.

        Raises:
            MobileMoEError: for an argument outside its range, an id outside the vocabulary, a
                prompt that is empty or has two tokens more than the context, or non-finite
                logits.
        """
        session = self._own(session)
        ids_T = checked_ids(self._encode(prompt, session.context + 1), self.config.vocab_size)
        check_top("top", top, self.config.vocab_size)
        valid = is_integer(start) and 1 <= start <= len(ids_T)
        hint = "nothing precedes token 0, so it has no probability"
        require(valid, "start", start, f"1 to {len(ids_T)}, the tokens of the prompt", hint)
        return list(score(session, ids_T, start, top))

    def generate(
        self,
        prompt: str | Ids,
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        top_p: float = 1.0,
        top_k: int = 0,
        seed: int | None = None,
        stop: str | Sequence[str] = (),
        *,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        logprobs: int = 0,
        session: Session | None = None,
    ) -> Iterator[Token]:
        """Continue `prompt`, text or token ids, one Token at a time.

        Text is encoded as by `encode`. Every id of `config.eos_token_id` ends; so does a stop
        string, which is not part of the text. The same seed gives the same tokens. How a token
        is drawn: see `sampling.Sampling`. `logprobs`: the likeliest tokens to report beside each.

        `session`, one of this model, keeps what it shares with the prompt and computes the
        rest; it holds the prompt and all new tokens but the last afterwards. To follow or stop
        the reading of a long prompt, do it first: `session.prefill`.

        Raises:
            MobileMoEError: at the call, for an argument outside its range or a prompt that is
                empty or longer than the context; while iterating, for an id outside the
                vocabulary, non-finite logits, or a session that was moved by somebody else.
        """
        sampling = Sampling(temperature, top_p, top_k, min_p, repetition_penalty)
        check_top("logprobs", logprobs, self.config.vocab_size)
        request = Request(max_new_tokens, sampling, seed, self.config.eos_token_id, logprobs)
        output = self._text_output(StopMatcher(stop), needed=isinstance(prompt, str))
        session = self._own(session)
        return generate_tokens(session, self._encode(prompt, session.context), request, output)

    def encode(self, prompt: str) -> list[int]:
        """Return the token ids of `prompt`, with BOS in front, once.

        Raises:
            CheckpointError: if the folder has no tokenizer.
        """
        ids = self.tokenizer.encode(prompt)
        bos = self.config.bos_token_id
        return ids[1:] if ids[:2] == [bos, bos] else ids  # the text began with BOS itself

    def _own(self, session: Session | None) -> Session:
        if session is None:
            return self.session()
        hint = "pass one that `session()` of this model returned"
        valid = isinstance(session, Session) and session.belongs_to(self._native)
        require(valid, "session", session, "a session of this model", hint)
        return session

    def _text_output(self, stop: StopMatcher, needed: bool) -> TextOutput:
        has_tokenizer = (self._checkpoint.folder / "tokenizer.json").is_file()
        if not has_tokenizer and not needed and not stop:
            return TextOutput(None)
        return TextOutput(self.tokenizer.stream(), stop)

    def _encode(self, prompt: str | Ids, limit: int) -> list[int]:
        hint = "a prompt needs at least one token"
        valid = not isinstance(prompt, bytes | bytearray) and len(prompt) > 0
        require(valid, "prompt", prompt, "text or token ids", hint)
        ids = self.encode(prompt) if isinstance(prompt, str) else list(prompt)
        if len(ids) > limit:
            raise MobileMoEError(
                f"prompt has {len(ids)} tokens; allowed: at most the context, {limit}",
                hint=f"shorten the prompt, or load with context up to "
                f"{self.config.max_position_embeddings}",
            )
        return ids


def default_kv(config: ModelConfig, activations: Activations) -> Kv:
    """Return the format of the cache for a model and its mode."""
    if activations == "fp32":
        return "fp32"
    return "int8" if _int8_heads(config) else "fp16"


def _int8_heads(config: ModelConfig) -> bool:
    return config.head_dim % 16 == 0 and config.head_dim <= LONGEST_INT8_HEAD


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


def _check_kv(kv: str, config: ModelConfig) -> None:
    allowed = get_args(Kv) if _int8_heads(config) else get_args(Kv)[1:]
    hint = "int8 is the smallest and fastest, fp32 the exact one"
    if not _int8_heads(config):
        hint = f"int8 needs a head_dim that is a multiple of 16, at most {LONGEST_INT8_HEAD}"
    require(kv in allowed, "kv", kv, ", ".join(allowed), hint)


def _check_path(path: str) -> None:
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise CheckpointError(
            f"{path!r}: the path is not UTF-8", hint="rename the folder; the engine needs UTF-8"
        ) from error
