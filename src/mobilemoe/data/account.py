"""Where every record and token of a run's sources goes, as values that print themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mobilemoe.data.windows import Count


@dataclass(frozen=True)
class SourceAccount:
    """What was read of one source: `tokens == train_tokens + heldout_tokens + repeated_tokens`.

    `documents` are texts or conversations. Repeated ones have the text, or the first question,
    of one that is held out, and are left out. `bad` counts skipped records by reason,
    `bad_shown` says where the first of them are.
    """

    name: str
    domain: str
    licence: str
    records: int
    documents: int
    tokens: int
    train_tokens: int
    heldout_tokens: int
    repeated_tokens: int
    bad: Mapping[str, int]
    bad_shown: tuple[str, ...]

    @property
    def bad_records(self) -> int:
        """Records that were skipped."""
        return sum(self.bad.values())

    def __str__(self) -> str:
        reasons = "; ".join(f"{count} {reason}" for reason, count in self.bad.items())
        return (
            f"{self.name}: {self.records:,} records, {self.bad_records:,} skipped"
            + (f" ({reasons})" if reasons else "")
            + f"; {self.tokens:,} tokens = {self.train_tokens:,} to train + "
            f"{self.heldout_tokens:,} held out + {self.repeated_tokens:,} repeated"
        )


@dataclass(frozen=True)
class StageUse:
    """What one stage takes of one source: `rows` rows, which are `epochs` times all of them.

    `count` says where the tokens of one epoch go.
    """

    stage: str
    source: str
    domain: str
    rows: int
    epochs: float
    count: Count

    def __str__(self) -> str:
        drawn = f"{self.rows:,} rows, {self.epochs:.2f} epochs of"
        return f"{self.stage}, {self.source}: {drawn} {self.count}"


@dataclass(frozen=True)
class DataSummary:
    """The account of a run's data, by source and by stage."""

    sources: tuple[SourceAccount, ...]
    uses: tuple[StageUse, ...]

    def lines(self) -> Iterator[str]:
        """Yield one line per source and per use of a source in a stage."""
        yield from map(str, self.sources)
        yield from map(str, self.uses)
