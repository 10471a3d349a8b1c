"""From logits to a token: greedy, temperature, top-k, top-p.

V vocabulary, C candidates left after top-k and top-p.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mobilemoe.engine.checks import is_integer, is_number, require
from mobilemoe.errors import MobileMoEError

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn. Temperature 0 is greedy; top_k 0 and top_p 1 keep everything.

    The order is temperature, top-k, top-p. Ties go to the lower token id.

    Raises:
        MobileMoEError: naming the field, its value and what is allowed.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0

    def __post_init__(self) -> None:
        temperature, top_p, top_k = self.temperature, self.top_p, self.top_k
        valid = is_number(temperature) and 0 <= temperature < math.inf
        hint = "0 is greedy, 1 leaves the model's distribution as it is"
        require(valid, "temperature", temperature, "a finite number, 0 or more", hint)
        valid = is_number(top_p) and 0 < top_p <= 1
        require(valid, "top_p", top_p, "above 0, up to 1", "1 keeps every token")
        valid = is_integer(top_k) and top_k >= 0
        require(valid, "top_k", top_k, "an integer, 0 or more", "0 keeps every token")


def choose(logits_V: Float32, sampling: Sampling, rng: np.random.Generator) -> int:
    """Return the id of the next token.

    Raises:
        MobileMoEError: if the largest logit is not finite.
    """
    _check_finite(logits_V)
    if sampling.temperature == 0.0:
        return int(np.argmax(logits_V))
    ids_C, probabilities_C = candidates(logits_V, sampling)
    return int(rng.choice(ids_C, p=probabilities_C))


def candidates(logits_V: Float32, sampling: Sampling) -> tuple[Int64, Float64]:
    """Return the ids that top-k and top-p keep, most likely first, and their probabilities.

    Needs a temperature above 0. The best token always stays.
    """
    ids_C = np.argsort(-logits_V, kind="stable")
    if sampling.top_k:
        ids_C = ids_C[: sampling.top_k]
    shifted_C = logits_V[ids_C].astype(np.float64) - float(logits_V[ids_C[0]])
    with np.errstate(over="ignore"):  # a tiny temperature makes -inf: probability 0
        scaled_C = shifted_C / max(sampling.temperature, np.finfo(np.float64).tiny)
    weights_C = np.exp(scaled_C)
    probabilities_C = weights_C / weights_C.sum()
    if sampling.top_p < 1.0:
        before_C = np.cumsum(probabilities_C) - probabilities_C
        kept = max(1, int(np.count_nonzero(before_C < sampling.top_p)))
        ids_C, probabilities_C = ids_C[:kept], probabilities_C[:kept]
        probabilities_C = probabilities_C / probabilities_C.sum()
    return ids_C, probabilities_C


def log_probability(logits_V: Float32, token_id: int) -> float:
    """Return the natural logarithm of the model's own probability of `token_id`."""
    shifted_V = logits_V.astype(np.float64) - float(np.max(logits_V))
    return float(shifted_V[token_id] - np.log(np.exp(shifted_V).sum()))


def _check_finite(logits_V: Float32) -> None:
    largest = float(np.max(logits_V))
    if not math.isfinite(largest):
        raise MobileMoEError(
            f"the model computed a logit of {largest}",
            hint="the weights hold NaN or infinite values: fetch or convert them again",
        )
