"""`mobilemoe bench` as a function: what to measure in, one document out."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mobilemoe.checkpoint import Checkpoint, open_checkpoint
from mobilemoe.engine import default_threads
from mobilemoe.profile.cases import Case, cases, needed_context
from mobilemoe.profile.ceilings import Ceilings, measure_ceilings
from mobilemoe.profile.llama_peer import gguf_for, require_llama_cpp
from mobilemoe.profile.machine import this_machine, versions
from mobilemoe.profile.measure import PeakMemory, Progress, Timing, measure, measure_memory
from mobilemoe.profile.rows import make_row
from mobilemoe.profile.subjects import LLAMA_CPP, Subject, describe, subject_of

Document = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What to measure; the defaults are those of the command line.

    `threads` empty: the engine's choice. `versus`: "llama.cpp" or another checkpoint. `gguf`:
    where the GGUF file for llama.cpp is kept (None: it is temporary). `memory`: whether peak
    memory is measured, in two more processes per model.
    """

    prompts: tuple[int, ...] = (512,)
    generated: tuple[int, ...] = (128,)
    depths: tuple[int, ...] = (0,)
    threads: tuple[int, ...] = ()
    rounds: int = 5
    activations: str | None = None
    kv: str | None = None
    versus: str | None = None
    gguf: Path | None = None
    memory: bool = True


def run_benchmark(path: str | Path, plan: Plan, progress: Progress = lambda text: None) -> Document:
    """Measure the model at `path`, a folder or a hub id; `progress` is told each step.

    Raises:
        MobileMoEError: if nothing is to be measured, a case does not fit the context, a model
            cannot be loaded, or a package that the comparison needs is missing.
    """
    wanted = cases(plan.prompts, plan.generated, plan.depths, plan.threads or (default_threads(),))
    checkpoint = open_checkpoint(path)
    context = _context(checkpoint, wanted)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    machine = asdict(this_machine()) | {"load_average": os.getloadavg()[0], "date": started}
    with _subjects(checkpoint, context, wanted, plan, progress) as subjects:
        progress("measuring the ceilings")
        threads = sorted({case.threads for case in wanted})
        ceilings = {count: measure_ceilings(count) for count in threads}
        timings = measure(subjects, wanted, context, plan.rounds, progress)
        peaks = [_peak(subject, threads[-1], context, plan, progress) for subject in subjects]
        parts = [
            _part(subject, timing, peak, ceilings, timings[0])
            for subject, timing, peak in zip(subjects, timings, peaks, strict=True)
        ]
    machine |= {"instruction_set": timings[0][0].ready["instruction_set"]}
    head = {
        "machine": machine | {"versions": versions(("mobilemoe", "numpy", "llama-cpp-python"))},
        "ceilings": _ceilings_document(ceilings),
        "rounds": plan.rounds,
        "context": context,
    }
    return {**head, **parts[0], "versus": _versus(parts)}


def _context(checkpoint: Checkpoint, wanted: Sequence[Case]) -> int:
    longest = checkpoint.config.max_position_embeddings
    return needed_context(wanted, longest, checkpoint.folder.name)


@contextmanager
def _subjects(
    checkpoint: Checkpoint,
    context: int,
    wanted: Sequence[Case],
    plan: Plan,
    progress: Progress,
) -> Iterator[list[Subject]]:
    """Yield the model and what it is held against; a temporary GGUF file goes at the end."""
    first = subject_of(checkpoint, context, plan.activations, plan.kv)
    if plan.versus is None:
        yield [first]
    elif plan.versus != LLAMA_CPP:
        other = open_checkpoint(plan.versus)
        _context(other, wanted)
        yield [first, subject_of(other, context, plan.activations, plan.kv)]
    else:
        require_llama_cpp()
        with tempfile.TemporaryDirectory(prefix="mobilemoe-bench-") as folder:
            kept = plan.gguf or Path(folder) / "model.gguf"
            gguf = gguf_for(checkpoint, kept, progress)
            yield [first, subject_of(checkpoint, context, gguf=gguf)]


def _peak(
    subject: Subject, threads: int, context: int, plan: Plan, progress: Progress
) -> PeakMemory | None:
    return measure_memory(subject, threads, context, progress) if plan.memory else None


def _part(
    subject: Subject,
    timings: Sequence[Timing],
    peak: PeakMemory | None,
    ceilings: dict[int, Ceilings],
    reference: Sequence[Timing],
) -> Document:
    """Return what the document says of one subject.

    llama.cpp does not tell its routing; the same ids in the same model choose the same experts.
    """
    same = subject.gguf is not None
    rows = [
        make_row(
            timing,
            subject.checkpoint,
            ceilings[timing.case.threads],
            ours.experts if same else None,
        )
        for timing, ours in zip(timings, reference, strict=True)
    ]
    return {
        "model": describe(subject, [timing.ready for timing in timings]),
        "peak_rss_mib": None if peak is None else peak.real_mib,
        "peak_rss": None if peak is None else asdict(peak),
        "rows": [asdict(row) for row in rows],
    }


def _ceilings_document(ceilings: dict[int, Ceilings]) -> Document:
    """Return those of the largest thread count, and all of them beneath."""
    top = asdict(ceilings[max(ceilings)])
    return {**top, "by_threads": [asdict(value) for value in ceilings.values()]}


def _versus(parts: Sequence[Document]) -> Document | None:
    """Return the other model's part with the ratios of the medians, ours over theirs."""
    if len(parts) == 1:
        return None
    ours, theirs = parts
    ratios = [
        {
            **{key: row[key] for key in ("kind", "tokens", "depth", "threads")},
            "ratio": row["tok_s"] / other["tok_s"],
        }
        for row, other in zip(ours["rows"], theirs["rows"], strict=True)
    ]
    return {**theirs, "ratios": ratios}
