"""How likely the model finds tokens: its own log-probabilities, before any sampling.

T tokens, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mobilemoe.engine.candidates import Float32, largest
from mobilemoe.engine.checks import is_integer, require
from mobilemoe.engine.sampling import check_finite
from mobilemoe.engine.session import Int32, Session

# Rows of logits that live at once while a text is scored: 16 MB with the released vocabulary.
CHUNK = 32

Alternatives = tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class TokenLogprob:
    """One scored token.

    `logprob` is the natural logarithm of the model's own probability, given all tokens before
    it. `top_logprobs` are id and logprob of the likeliest tokens there, likeliest first, as
    many as were asked for.
    """

    id: int
    logprob: float
    top_logprobs: Alternatives


def token_logprob(logits_V: Float32, token_id: int, top: int = 0) -> TokenLogprob:
    """Return the log-probability of `token_id` and of the `top` likeliest tokens.

    Computed in float32 with a float64 sum: within about 1e-6 of the exact value.
    """
    top_logit, log_total = _normalizer(logits_V)
    best = largest(logits_V, top) if top else np.empty(0, np.int64)
    best = best[np.argsort(-logits_V[best], kind="stable")]

    def logprob(i: int) -> float:
        return float(logits_V[i]) - top_logit - log_total

    alternatives = tuple((int(i), logprob(i)) for i in best)
    return TokenLogprob(token_id, logprob(token_id), alternatives)


def score(session: Session, ids_T: Int32, start: int, top: int) -> Iterator[TokenLogprob]:
    """Yield the log-probabilities of `ids_T[start:]`, each given all ids before it.

    The session is rewound to what it shares with `ids_T[: start - 1]` and continued to the last
    id but one. At most CHUNK rows of logits live at once.

    Raises:
        MobileMoEError: for more than one id beyond the context, or non-finite logits.
    """
    last = len(ids_T) - 1
    if start > last:
        return
    kept = session.reuse(ids_T[:last], start - 1)
    if kept < start - 1:
        session.append(ids_T[kept : start - 1])
    for first in range(start - 1, last, CHUNK):
        end = min(first + CHUNK, last)
        logits_TV = session.append_all(ids_T[first:end])
        for logits_V, token_id in zip(logits_TV, ids_T[first + 1 : end + 1], strict=True):
            check_finite(logits_V)
            yield token_logprob(logits_V, int(token_id), top)


def check_top(field: str, top: int, vocab_size: int) -> None:
    """Refuse a number of alternatives outside 0 to `vocab_size`."""
    valid = is_integer(top) and 0 <= top <= vocab_size
    require(valid, field, top, f"0 to {vocab_size}", "0 leaves the alternatives out")


def _normalizer(logits_V: Float32) -> tuple[float, float]:
    """Return the largest logit and log(sum(exp(logits - largest))).

    Apart: beside a large logit their sum would forget the logarithm.
    """
    top = np.max(logits_V)
    weights_V = logits_V - top
    np.exp(weights_V, out=weights_V)
    return float(top), math.log(float(weights_V.sum(dtype=np.float64)))
