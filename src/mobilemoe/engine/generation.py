"""One generation: prompt in, a stream of tokens out.

V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from mobilemoe.engine.checks import is_integer, require
from mobilemoe.engine.logprobs import Alternatives, token_logprob
from mobilemoe.engine.sampling import Bool, Sampling, choose
from mobilemoe.engine.session import Session
from mobilemoe.engine.stops import StopMatcher

if TYPE_CHECKING:
    from mobilemoe.checkpoint import TextStream

FinishReason = Literal["stop", "length", "context"]


@dataclass(frozen=True)
class Token:
    """One generated token.

    `text` is the text that this token made showable: possibly empty (half a character, the
    beginning of a stop string, no tokenizer) or longer than the token. `logprob` is the natural
    logarithm of the model's own probability, before anything that `Sampling` does.
    `finish_reason` is set on the last token only: "stop" (end token or stop string), "length"
    (max_new_tokens) or "context" (no room for another token). `top_logprobs` are id and logprob
    of the likeliest tokens in its place, likeliest first, as many as were asked for.
    """

    id: int
    text: str
    logprob: float
    finish_reason: FinishReason | None
    top_logprobs: Alternatives = ()


@dataclass(frozen=True)
class Request:
    """What one generation asks for.

    Raises:
        MobileMoEError: naming the field, its value and what is allowed.
    """

    max_new_tokens: int
    sampling: Sampling
    seed: int | None
    eos_token_id: tuple[int, ...]
    logprobs: int = 0

    def __post_init__(self) -> None:
        limit, seed = self.max_new_tokens, self.seed
        valid = is_integer(limit) and limit >= 0
        require(valid, "max_new_tokens", limit, "an integer, 0 or more", "0 generates nothing")
        valid = seed is None or (is_integer(seed) and seed >= 0)
        require(valid, "seed", seed, "None or an integer, 0 or more", "None draws a new seed")


@dataclass
class TextOutput:
    """Ids to showable text: incremental decoding, then stop strings. No stream: no text."""

    stream: TextStream | None
    stop: StopMatcher = field(default_factory=lambda: StopMatcher(()))

    def push(self, token_id: int) -> tuple[str, bool]:
        """Return the text that may be shown now, and whether a stop string is complete."""
        return self.stop.push(self.stream.push(token_id)) if self.stream else ("", False)

    def flush(self) -> str:
        """Return what is left at the end."""
        text, stopped = self.stop.push(self.stream.flush() if self.stream else "")
        return text if stopped else text + self.stop.flush()


def generate_tokens(
    session: Session, prompt_ids: Sequence[int], request: Request, output: TextOutput
) -> Iterator[Token]:
    """Yield tokens until an end token, a stop string, `max_new_tokens` or a full context.

    The session is rewound to what it shares with the prompt. Afterwards it holds the prompt and
    every token that was yielded except the last.
    """
    if request.max_new_tokens == 0:
        return
    rng = np.random.default_rng(request.seed)
    logits_V = session.append(prompt_ids[session.reuse(prompt_ids) :])
    seen_V = _marked(prompt_ids, len(logits_V))
    position = session.position
    for left in range(request.max_new_tokens - 1, -1, -1):
        token_id = choose(logits_V, request.sampling, rng, seen_V)
        ended = token_id in request.eos_token_id
        text, stopped = ("", False) if ended else output.push(token_id)
        reason = _finish_reason(ended or stopped, left, session)
        if reason is not None and not stopped:
            text += output.flush()
        scored = token_logprob(logits_V, token_id, request.logprobs)
        yield Token(token_id, text, scored.logprob, reason, scored.top_logprobs)
        if reason is not None:
            return
        session.require_at(position)
        logits_V = session.append([token_id])
        seen_V[token_id] = True
        position += 1


def _marked(ids: Sequence[int], vocab_size: int) -> Bool:
    seen_V = np.zeros(vocab_size, np.bool_)
    seen_V[list(ids)] = True
    return seen_V


def _finish_reason(stopped: bool, left: int, session: Session) -> FinishReason | None:
    if stopped:
        return "stop"
    if left == 0:
        return "length"
    return "context" if session.position == session.context else None
