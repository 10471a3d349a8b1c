"""What the user asks of a demo run, and how its minutes become training tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mobilemoe.errors import MobileMoEError

# Share of the training tokens per stage. The paper spends 92 % on pre-training; a short run
# needs the later stages long enough to see what they do (our choice).
SHARES: Mapping[str, float] = {
    "pretrain": 0.56,
    "midtrain": 0.16,
    "sft": 0.12,
    "qat": 0.08,
    "control": 0.08,
}
MIN_TOKENS = 20_000


@dataclass(frozen=True)
class Settings:
    """The arguments of `mobilemoe demo`.

    `minutes` is wall time from `started_at` (seconds since the epoch) to the report, `tokens`
    the training tokens of all stages together; with `tokens` the run is reproducible bit for
    bit on one machine, with `minutes` the tokens depend on its speed.

    Raises:
        MobileMoEError: naming the field, its value and what is allowed.
    """

    minutes: float
    seed: int
    tokens: int | None
    started_at: float

    def __post_init__(self) -> None:
        _require(2 <= self.minutes <= 24 * 60, "minutes", self.minutes, "2 to 1440")
        _require(0 <= self.seed < 2**31, "seed", self.seed, "0 to 2147483647")
        if self.tokens is not None:
            allowed = f"{MIN_TOKENS} to 10000000000"
            _require(MIN_TOKENS <= self.tokens <= 10**10, "tokens", self.tokens, allowed)

    @property
    def heldout_tokens(self) -> int:
        """Held-out tokens per domain that a form is scored on; fewer when the run is tiny."""
        is_tiny = self.tokens is not None and self.tokens < 500_000
        return 4_096 if is_tiny else 24_576

    @property
    def identity(self) -> dict[str, object]:
        """What makes two runs the same run."""
        minutes = self.minutes if self.tokens is None else None
        return {"minutes": minutes, "seed": self.seed, "tokens": self.tokens}

    @property
    def command(self) -> str:
        """The command that starts this run."""
        amount = f"--minutes {self.minutes:g}" if self.tokens is None else f"--tokens {self.tokens}"
        return f"mobilemoe demo {amount} --seed {self.seed}"


def stage_tokens(total: int) -> dict[str, int]:
    """Split `total` training tokens over the stages."""
    return {name: round(share * total) for name, share in SHARES.items()}


def _require(condition: bool, field: str, value: object, allowed: str) -> None:
    if not condition:
        raise MobileMoEError(f"demo: {field} is {value}; allowed: {allowed}")
