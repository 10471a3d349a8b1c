"""Who is measured: a checkpoint on our engine, or the same one as GGUF in llama.cpp."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mobilemoe.checkpoint import Checkpoint
from mobilemoe.checkpoint.fingerprint import fingerprint
from mobilemoe.profile.process import Answer, WorkerProcess
from mobilemoe.profile.prompts import prompt_source, real_ids, repeated_ids

OUR_WORKER = "mobilemoe.profile.worker"
LLAMA_WORKER = "mobilemoe.profile.llama_worker"
LLAMA_CPP = "llama.cpp"


@dataclass(frozen=True)
class Subject:
    """One model on one engine, fed with `ids`; `gguf` for llama.cpp, None for ours."""

    checkpoint: Checkpoint
    ids: tuple[int, ...]
    activations: str | None = None
    kv: str | None = None
    gguf: Path | None = None

    @property
    def name(self) -> str:
        """What to call it in a table."""
        folder = self.checkpoint.folder.resolve().name
        return f"{folder} in {LLAMA_CPP}" if self.gguf is not None else folder

    def start(self, threads: int, context: int) -> WorkerProcess:
        """Start a process that holds the model; raises as WorkerProcess."""
        setup: Answer = {"ids": list(self.ids), "threads": threads, "context": context}
        if self.gguf is not None:
            setup |= {"path": str(self.gguf), "vocab_size": self.checkpoint.config.vocab_size}
            return WorkerProcess(LLAMA_WORKER, self.name, setup)
        setup |= {"path": str(self.checkpoint.folder.resolve())}
        setup |= {"activations": self.activations, "kv": self.kv}
        return WorkerProcess(OUR_WORKER, str(self.checkpoint.folder), setup)

    def repeating(self) -> Subject:
        """Return the same model, fed with its first token over and over."""
        return replace(self, ids=tuple(repeated_ids(self.ids, len(self.ids))))


def subject_of(
    checkpoint: Checkpoint,
    context: int,
    activations: str | None = None,
    kv: str | None = None,
    gguf: Path | None = None,
) -> Subject:
    """Return `checkpoint` fed with real prompts that fill `context`."""
    ids = tuple(real_ids(checkpoint, context + 1))
    return Subject(checkpoint, ids, activations, kv, gguf)


def describe(subject: Subject, ready: Sequence[Answer]) -> dict[str, Any]:
    """Return what the document says of a model; `ready` is what its processes said."""
    checkpoint, config = subject.checkpoint, subject.checkpoint.config
    about = {key: value for key, value in ready[0].items() if key != "threads"}
    return {
        "name": subject.name,
        "engine": "mobilemoe" if subject.gguf is None else LLAMA_CPP,
        "path": str(subject.gguf or checkpoint.folder),
        "fingerprint": fingerprint(checkpoint),
        "weight_format": checkpoint.weight_format if subject.gguf is None else "Q4_0",
        "total_params": config.total_params,
        "active_params": config.active_params,
        "weight_bytes": config.weight_bytes(checkpoint.weight_format),
        "config": config.to_dict(),
        **about,
        "prompts": prompt_source(checkpoint),
    }
