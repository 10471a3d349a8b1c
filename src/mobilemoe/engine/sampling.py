"""From logits to a token: repetition penalty, temperature, top-k, top-p, min-p, and a draw.

V vocabulary, C candidates that are left.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mobilemoe.engine.candidates import Float32, candidates
from mobilemoe.engine.checks import is_integer, is_number, require
from mobilemoe.errors import MobileMoEError

Bool = npt.NDArray[np.bool_]

_BLOCK = 512  # weights that are summed at once to draw from them


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn. The defaults are greedy and change nothing.

    The order: the repetition penalty on the logits of tokens that are in the context already
    (positive ones divided by it, negative ones multiplied: Keskar et al. 2019, section 4.1);
    temperature; top-k; top-p; min-p. Temperature 0 is greedy: the largest logit after the
    penalty. Ties go to the lower token id.

    Raises:
        MobileMoEError: naming the field, its value and what is allowed.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        temperature, top_p, top_k = self.temperature, self.top_p, self.top_k
        valid = is_number(temperature) and 0 <= temperature < math.inf
        hint = "0 is greedy, 1 leaves the model's distribution as it is"
        require(valid, "temperature", temperature, "a finite number, 0 or more", hint)
        valid = is_number(top_p) and 0 < top_p <= 1
        require(valid, "top_p", top_p, "above 0, up to 1", "1 keeps every token")
        valid = is_integer(top_k) and top_k >= 0
        require(valid, "top_k", top_k, "an integer, 0 or more", "0 keeps every token")
        min_p, penalty = self.min_p, self.repetition_penalty
        valid = is_number(min_p) and 0 <= min_p <= 1
        require(valid, "min_p", min_p, "0 to 1", "0 keeps every token")
        valid = is_number(penalty) and 0 < penalty < math.inf
        hint = "1 changes nothing, 1.1 makes repetition a little less likely"
        require(valid, "repetition_penalty", penalty, "a finite number above 0", hint)


def choose(
    logits_V: Float32, sampling: Sampling, rng: np.random.Generator, seen_V: Bool | None = None
) -> int:
    """Return the id of the next token; `seen_V` marks the tokens of the context.

    Takes one number from `rng`, or none if greedy.

    Raises:
        MobileMoEError: if the largest logit is not finite.
    """
    check_finite(logits_V)
    if seen_V is not None and sampling.repetition_penalty != 1.0:
        logits_V = penalized(logits_V, sampling.repetition_penalty, seen_V)
    if sampling.temperature == 0.0:
        return int(np.argmax(logits_V))
    s = sampling
    ids_C, weights_C = candidates(logits_V, s.temperature, s.top_k, s.top_p, s.min_p)
    return int(ids_C[_draw(weights_C, rng.random())])


def penalized(logits_V: Float32, penalty: float, seen_V: Bool) -> Float32:
    """Return a copy with positive logits of seen tokens divided, negative ones multiplied."""
    ids = np.flatnonzero(seen_V)
    x = logits_V[ids].astype(np.float64)
    with np.errstate(over="ignore"):
        x = np.where(x > 0, x / penalty, x * penalty)
        x = np.minimum(x, np.finfo(np.float32).max)  # finite for any penalty
        logits_V = logits_V.copy()
        logits_V[ids] = x
    return logits_V


def check_finite(logits_V: Float32) -> None:
    """Refuse logits whose largest is NaN or infinite.

    Raises:
        MobileMoEError: saying which value it is.
    """
    largest = float(np.max(logits_V))
    if not math.isfinite(largest):
        raise MobileMoEError(
            f"the model computed a logit of {largest}",
            hint="the weights hold NaN or infinite values: fetch or convert them again",
        )


def _draw(weights_C: Float32, uniform: float) -> int:
    """Return the position at which the running sum of the weights passes `uniform` of all.

    First the block where it does is found, then the place in the block.
    """
    blocks = np.arange(0, len(weights_C), _BLOCK)
    sums_B = np.cumsum(np.add.reduceat(weights_C, blocks, dtype=np.float64))
    total = float(sums_B[-1])
    target = min(uniform * total, math.nextafter(total, 0.0))  # so that it is passed somewhere
    block = int(np.searchsorted(sums_B, target, side="right"))
    weights_N = weights_C[block * _BLOCK : (block + 1) * _BLOCK]
    before = float(sums_B[block - 1]) if block else 0.0
    sums_N = before + np.cumsum(weights_N, dtype=np.float64)
    position = int(np.searchsorted(sums_N, target, side="right"))
    possible = int(np.flatnonzero(weights_N)[-1])  # rounding may leave the target unpassed
    return block * _BLOCK + min(position, possible)
