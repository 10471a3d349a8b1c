"""Opening a checkpoint for running: every argument is checked before anything is mapped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from mobilemoe.checkpoint import Checkpoint, open_checkpoint
from mobilemoe.config import ModelConfig
from mobilemoe.engine.checks import is_integer, require
from mobilemoe.engine.model import Activations, Kv, Model
from mobilemoe.engine.native import instruction_set, native_errors, native_module
from mobilemoe.engine.plan import check_plan, plan_memory
from mobilemoe.engine.residency import check_resident, pinned_experts
from mobilemoe.engine.routing import RoutingTrace
from mobilemoe.engine.start_line import StartLine, start_line
from mobilemoe.engine.threads import MAX_THREADS, default_threads
from mobilemoe.errors import CheckpointError, MobileMoEError

if TYPE_CHECKING:
    from mobilemoe.engine import _native

DEFAULT_CONTEXT = 8192
LONGEST_INT8_HEAD = 512  # what the native cache takes
X86_KERNELS = ("avx512", "avx2-vnni", "avx2")
ARM_KERNELS = ("neon-i8mm", "neon-dotprod")
KERNELS = ("auto", *X86_KERNELS, *ARM_KERNELS, "portable")


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
