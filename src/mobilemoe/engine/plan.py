"""What running a model will take in memory, before any of it is mapped.

The plan is for one session whose context is full, after prompts that have met every expert. It
counts what is resident in this process: pages of mapped weights included.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mobilemoe.checkpoint import Checkpoint
from mobilemoe.config import KvFormat
from mobilemoe.engine.checks import is_integer, require
from mobilemoe.engine.footprint import (
    KV_POSITIONS,
    default_kv_format,
    expert_bytes,
    kv_cache_bytes,
    model_bytes,
    scratch_bytes,
)
from mobilemoe.engine.memory_limits import memory_limits
from mobilemoe.engine.residency import bookkeeping_bytes, smallest_resident
from mobilemoe.engine.system_files import ROOT, read_field
from mobilemoe.errors import MobileMoEError

ASKED = "memory_limit"
# Measured: a tokenizer of 128,000 tokens takes 11 to 14 times its file while it is read.
TOKENIZER_FACTOR = 14
# What running adds to Python: pages of the libraries, stacks of threads, small objects.
RUNNING_BYTES = 4 << 20
UNKNOWN_PROCESS = 40 << 20  # Python with numpy, where the system does not tell


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes by purpose, their sum, and the limit that the sum is held against.

    `weights`: pages of the files, with `resident` only so much of the routed experts among
    them. `copied`: norms and routers as float32, and the table of pages under `resident`. `kv`:
    a full cache of `context` tokens. `scratch`: buffers of a session. `tokenizer`: 0 for a
    folder without one. `process`: Python as it stands now, and a little for running. `limit` is
    None where the system tells none.
    """

    weights: int
    copied: int
    kv: int
    scratch: int
    tokenizer: int
    process: int
    context: int
    kv_format: KvFormat
    experts: int  # of all weights, what routed experts take
    resident: int | None
    smallest_resident: int
    limit: int | None
    limit_name: str | None

    @property
    def total(self) -> int:
        """The peak resident memory of the process."""
        parts = self.weights, self.copied, self.kv, self.scratch, self.tokenizer, self.process
        return sum(parts)

    @property
    def fits(self) -> bool:
        """Whether the sum is within the limit."""
        return self.limit is None or self.total <= self.limit

    def __str__(self) -> str:
        text = f"{megabytes(self.total)}: {self.parts()}"
        if self.limit is None:
            return text
        return f"{text}; limit {megabytes(self.limit)} ({self.limit_name})"

    def parts(self) -> str:
        """Return the bytes by purpose in words."""
        experts = ""
        if self.resident is not None:
            kept = megabytes(min(self.resident, self.experts))
            experts = f" ({kept} of {megabytes(self.experts)} experts)"
        tokenizer = f"tokenizer {megabytes(self.tokenizer)}, " if self.tokenizer else ""
        return (
            f"weights {megabytes(self.weights)}{experts}, "
            f"KV {megabytes(self.kv)} ({self.context} tokens, {self.kv_format}), "
            f"buffers {megabytes(self.copied + self.scratch)}, "
            f"{tokenizer}Python {megabytes(self.process)}"
        )


def megabytes(value: int) -> str:
    """Return bytes in MB (10^6), or GB from a thousand of them on."""
    if value >= 999_500_000:
        return f"{value / 1e9:.2f} GB"
    return f"{value / 1e6:.0f} MB" if value >= 9_950_000 else f"{value / 1e6:.1f} MB"


def plan_memory(
    checkpoint: Checkpoint,
    context: int,
    threads: int,
    int8: bool,
    resident: int | None = None,
    memory_limit: int | None = None,
    kv: KvFormat | None = None,
    root: Path = ROOT,
) -> MemoryPlan:
    """Plan a session of `checkpoint`; nothing of the weights is read.

    `memory_limit` takes the place of the limits that the system sets.

    Raises:
        CheckpointError: if a weights file is missing.
        MobileMoEError: for a `memory_limit` that is no positive number of bytes.
    """
    valid = memory_limit is None or (is_integer(memory_limit) and memory_limit > 0)
    hint = "leave it out for what the system allows"
    require(valid, ASKED, memory_limit, "None or bytes, 1 or more", hint)
    config, folder = checkpoint.config, checkpoint.folder
    files = sum(_size(path) for path in checkpoint.shards)
    experts = expert_bytes(config, checkpoint.weight_format)
    kept = experts if resident is None else min(resident, experts)
    kv = kv or default_kv_format(int8)
    weights = files - experts + kept
    copied = model_bytes(config) + (0 if resident is None else bookkeeping_bytes(files))
    kv_cache = kv_cache_bytes(config, context, kv)
    scratch = scratch_bytes(config, context, threads, int8, kv)
    tokenizer = TOKENIZER_FACTOR * _size(folder / "tokenizer.json")
    used = process_bytes(root)
    new = weights + copied + kv_cache + scratch + tokenizer + RUNNING_BYTES
    limits = _limits(memory_limit, used, new + files - weights, new, root)
    limit, limit_name = min(limits, default=(None, None))
    return MemoryPlan(
        weights=weights,
        copied=copied,
        kv=kv_cache,
        scratch=scratch,
        tokenizer=tokenizer,
        process=used + RUNNING_BYTES,
        context=context,
        kv_format=kv,
        experts=experts,
        resident=resident,
        smallest_resident=smallest_resident(config, checkpoint.weight_format),
        limit=limit,
        limit_name=limit_name,
    )


def check_plan(plan: MemoryPlan) -> None:
    """Refuse a plan above its limit, with the numbers and what to turn.

    Raises:
        MobileMoEError: unless `plan.fits`.
    """
    if plan.fits or plan.limit is None:
        return
    raise MobileMoEError(
        f"the model would take {megabytes(plan.total)} of memory ({plan.parts()}); allowed: "
        f"{megabytes(plan.limit)} ({plan.limit_name})",
        hint=_what_to_turn(plan, plan.limit),
    )


def process_bytes(root: Path = ROOT) -> int:
    """Return the resident memory of this process now."""
    resident = read_field(root / "proc/self/status", "VmRSS")
    return UNKNOWN_PROCESS if resident is None else 1024 * resident


def _limits(
    asked: int | None, used: int, mapped: int, new: int, root: Path
) -> Iterator[tuple[int, str]]:
    """Yield how large the sum may be, under each limit; all address space of `mapped` counts."""
    if asked is not None:
        yield asked, ASKED
        return
    for limit in memory_limits(root).limits:
        room = limit.room if limit.maps_files else limit.room - (mapped - new)
        yield max(0, used + room), limit.name


def _what_to_turn(plan: MemoryPlan, limit: int) -> str:
    """Return the hint: what of context, resident experts and limit would help, with numbers."""
    ways = []
    over = plan.total - limit
    tokens = int(plan.context * (1 - over / plan.kv)) // KV_POSITIONS * KV_POSITIONS
    if tokens > 0:
        ways.append(f"a context of about {tokens} tokens (context, --context)")
    kept = plan.experts if plan.resident is None else min(plan.resident, plan.experts)
    table = bookkeeping_bytes(plan.weights) if plan.resident is None else 0
    if plan.experts and kept - over - table >= plan.smallest_resident:
        ways.append(
            f"{megabytes(kept - over - table)} of experts in memory and the rest on disk "
            "(resident, --resident)"
        )
    if not ways and over < plan.kv + kept - plan.smallest_resident:
        ways.append("a shorter context and fewer experts in memory (--context, --resident)")
    advice = f"it fits with {' or '.join(ways)}" if ways else "choose a smaller model"
    if plan.limit_name == ASKED:
        return f"{advice}; or raise memory_limit (--memory-limit)"
    return f"{advice}; end other programs, or set memory_limit (--memory-limit) to go on anyway"


def _size(path: Path) -> int:
    """Bytes of a file; 0 if there is none, which the reader of the file will tell."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
