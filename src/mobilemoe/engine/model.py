"""A checkpoint, INT4 or BF16, ready to run; `loading.load` opens it.

T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from mobilemoe.checkpoint import Checkpoint, Tokenizer
from mobilemoe.config import ModelConfig
from mobilemoe.engine.checks import is_integer, require
from mobilemoe.engine.footprint import session_bytes
from mobilemoe.engine.generation import Request, TextOutput, Token, generate_tokens
from mobilemoe.engine.logprobs import TokenLogprob, check_top, score
from mobilemoe.engine.native import native_errors
from mobilemoe.engine.plan import MemoryPlan
from mobilemoe.engine.probe import LayerProbe
from mobilemoe.engine.residency import Residency
from mobilemoe.engine.sampling import Sampling
from mobilemoe.engine.session import Ids, Session, checked_ids
from mobilemoe.engine.start_line import StartLine, start_line
from mobilemoe.engine.stops import StopMatcher
from mobilemoe.errors import MobileMoEError

if TYPE_CHECKING:
    from mobilemoe.engine import _native

Activations = Literal["int8", "fp32"]
Kv = Literal["int8", "fp16", "fp32"]


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
