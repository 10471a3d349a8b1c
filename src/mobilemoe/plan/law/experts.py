"""The number of experts as the scaling law sees it: growth that saturates."""

from __future__ import annotations

from math import isfinite

from mobilemoe.errors import MobileMoEError

EXPERTS_START = 1.0  # E_start and E_max of arXiv 2605.27358
EXPERTS_LIMIT = 32.0


def effective_experts(
    num_experts: float, start: float = EXPERTS_START, limit: float = EXPERTS_LIMIT
) -> float:
    """Return Ê, the number of experts as the law sees it: E at `start`, at most `limit`.

    1/Ê = 1/(E - 1 + 1/(1/start - 1/limit)) + 1/limit (arXiv 2202.01169).

    Raises:
        MobileMoEError: if `num_experts` is not a finite number of at least 1.
    """
    if not (isfinite(num_experts) and num_experts >= 1):
        raise MobileMoEError(
            f"num_experts is {num_experts!r}; allowed: a number from 1 up",
            hint="a dense model has 1",
        )
    return 1 / (1 / (num_experts - 1 + 1 / (1 / start - 1 / limit)) + 1 / limit)
