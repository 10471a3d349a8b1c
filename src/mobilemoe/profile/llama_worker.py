"""The process behind llama.cpp: one GGUF file, and for each case its fastest settings.

Setup: path, ids, threads, context, vocab_size. Requests as in `worker`. Through the C interface
of llama-cpp-python, so that no Python stands between two tokens but the greedy choice, as with
our own engine. "prepare" tries flash attention and KV types out at the case's own depth and keeps
the fastest.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt

from mobilemoe.errors import MobileMoEError
from mobilemoe.profile.memory import peak_rss_mib
from mobilemoe.profile.process import Answer, serve
from mobilemoe.profile.track import Track, case_of

BATCH = 512
TRIAL_TOKENS = {"prefill": 512, "decode": 16}
TRIAL_ROUNDS = 2
KV_TYPES = {
    "fp32": llama_cpp.GGML_TYPE_F32,
    "fp16": llama_cpp.GGML_TYPE_F16,
    "q8_0": llama_cpp.GGML_TYPE_Q8_0,
}


@dataclass(frozen=True)
class Settings:
    """How a context of llama.cpp runs."""

    flash_attention: bool
    kv_format: str

    def __str__(self) -> str:
        return f"flash attention {'on' if self.flash_attention else 'off'}, KV {self.kv_format}"


# A quantised V needs flash attention there.
CHOICES = (Settings(True, "fp16"), Settings(False, "fp16"), Settings(True, "q8_0"))


class LlamaContext:
    """One sequence in llama.cpp; a `track.Context`."""

    def __init__(
        self, model: Any, vocab_size: int, settings: Settings, threads: int, context: int
    ) -> None:
        """Make the context; `model` must outlive it.

        Raises:
            MobileMoEError: if llama.cpp refuses, for want of memory for example.
        """
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = context
        parameters.n_batch = parameters.n_ubatch = BATCH
        parameters.n_threads = parameters.n_threads_batch = threads
        parameters.flash_attn_type = int(settings.flash_attention)
        parameters.type_k = parameters.type_v = KV_TYPES[settings.kv_format]
        parameters.no_perf = True
        self._context = llama_cpp.llama_init_from_model(model, parameters)
        if not self._context:
            raise MobileMoEError(f"llama.cpp makes no context with {settings}")
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._batch = llama_cpp.llama_batch_init(BATCH, 0, 1)
        self._token, self._pos, self._wanted = self._batch_arrays()
        self._vocab_size = vocab_size
        self._position = 0

    def _batch_arrays(self) -> tuple[Any, Any, Any]:
        """Return ids, positions and "logits wanted" of the batch; fill in what never changes."""
        batch = self._batch
        for index in range(BATCH):
            batch.n_seq_id[index], batch.seq_id[index][0] = 1, 0
        fields = (batch.token, batch.pos, batch.logits)
        token, pos, wanted = (np.ctypeslib.as_array(field, (BATCH,)) for field in fields)
        wanted[:] = 0
        return token, pos, wanted

    def append(self, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        """Append ids and return the logits [V] after the last one, valid until the next call."""
        for start in range(0, len(ids), BATCH):
            self._decode(ids[start : start + BATCH], last=start + BATCH >= len(ids))
        logits = llama_cpp.llama_get_logits_ith(self._context, -1)
        return np.ctypeslib.as_array(logits, (self._vocab_size,))

    def _decode(self, ids: Sequence[int], last: bool) -> None:
        count = self._batch.n_tokens = len(ids)
        self._token[:count] = ids
        self._pos[:count] = np.arange(self._position, self._position + count)
        self._wanted[:count] = 0
        self._wanted[count - 1] = last
        status = llama_cpp.llama_decode(self._context, self._batch)
        if status != 0:
            raise MobileMoEError(f"llama_decode returned {status} at position {self._position}")
        self._position += len(ids)

    def rewind(self, position: int) -> None:
        """Forget every token from `position` on."""
        if not llama_cpp.llama_memory_seq_rm(self._memory, 0, position, -1):
            raise MobileMoEError(f"llama.cpp cannot go back to position {position}")
        self._position = position

    def close(self) -> None:
        """Free the context."""
        llama_cpp.llama_batch_free(self._batch)
        llama_cpp.llama_free(self._context)


class LlamaRunner:
    """Rounds on contexts of one model, one context per way to run it."""

    def __init__(self, setup: Answer) -> None:
        """Load the GGUF file of a setup line.

        Raises:
            MobileMoEError: if llama.cpp refuses it.
        """
        self._setup = setup
        parameters = llama_cpp.llama_model_default_params()
        self._model = llama_cpp.llama_model_load_from_file(setup["path"].encode(), parameters)
        if not self._model:
            raise MobileMoEError(f"llama.cpp cannot load {setup['path']}")
        self._tracks: dict[Settings, Track] = {}
        self._chosen: dict[tuple[str, int, int], Settings] = {}

    def about(self) -> Answer:
        """Say how the model runs; `kv_format` is told case by case."""
        features = llama_cpp.llama_print_system_info().decode()
        return {
            "threads": self._setup["threads"],
            "instruction_set": " ".join(re.findall(r"(\w+) = 1", features)),
            "activations": "int8",
            "kv_format": "fp16",
            "version": llama_cpp.__version__,
        }

    def run(self, request: Answer) -> Answer:
        """Answer one request."""
        if request["do"] == "memory":
            return {"peak_rss_mib": peak_rss_mib()}
        if request["do"] == "fill":
            track = self._track(CHOICES[0])
            track.prefill(request["tokens"], 0)
            track.decode(request["new_tokens"], request["tokens"])
            return {"peak_rss_mib": peak_rss_mib()}
        case = case_of(request)
        if request["do"] == "prepare":
            settings = self._chosen[case] = self._fastest(*case)
            self._track(settings).run(*case)
            return {"settings": str(settings), "kv_format": settings.kv_format}
        return {"seconds": self._track(self._chosen[case]).run(*case)}

    def _fastest(self, kind: str, tokens: int, depth: int) -> Settings:
        """Return the settings whose best trial is the shortest."""
        tokens = min(tokens, TRIAL_TOKENS[kind])
        best = {}
        for settings in CHOICES:
            track = self._track(settings)
            track.run(kind, tokens, depth)
            trials = [sum(track.run(kind, tokens, depth)) for _ in range(TRIAL_ROUNDS)]
            best[settings] = min(trials)
        return min(best, key=best.__getitem__)

    def _track(self, settings: Settings) -> Track:
        if settings not in self._tracks:
            setup = self._setup
            sizes = setup["threads"], setup["context"]
            context = LlamaContext(self._model, setup["vocab_size"], settings, *sizes)
            self._tracks[settings] = Track(context, setup["ids"])
        return self._tracks[settings]


# llama.cpp logs hundreds of lines; what goes wrong comes back as a status, too. C keeps the
# pointer, so the object must live as long as the process.
_SILENCE = llama_cpp.llama_log_callback(lambda level, text, user_data: None)


def start(setup: Answer) -> LlamaRunner:
    """Load the model of a setup line."""
    llama_cpp.llama_log_set(_SILENCE, ctypes.c_void_p())
    llama_cpp.llama_backend_init()
    return LlamaRunner(setup)


if __name__ == "__main__":
    serve(start)
