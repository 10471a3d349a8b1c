"""The general law: coefficients that belong to an architecture (arXiv 2605.27358)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from mobilemoe.errors import MobileMoEError
from mobilemoe.plan.law.dense import DenseLaw
from mobilemoe.plan.law.moe import MoELaw

Law = TypeVar("Law", bound=MoELaw | DenseLaw, covariant=True)


@dataclass(frozen=True)
class Architecture:
    """What the coefficients depend on: fine experts per expert equivalent, shared expert."""

    granularity: int
    shared_expert: bool

    def __str__(self) -> str:
        return f"g = {self.granularity} {'with' if self.shared_expert else 'without'} shared expert"


@dataclass(frozen=True)
class LawTable(Generic[Law]):
    """One law per architecture that was swept."""

    entries: tuple[tuple[Architecture, Law], ...]

    def at(self, architecture: Architecture) -> Law:
        """Return the law of `architecture`.

        Raises:
            MobileMoEError: if it was not swept; there is no interpolation between architectures.
        """
        for known, law in self.entries:
            if known == architecture:
                return law
        known_ones = "; ".join(str(known) for known, _ in self.entries)
        raise MobileMoEError(
            f"architecture is {architecture}; the law was fitted on: {known_ones}",
            hint="fit it on runs of that architecture, or ask for one of these",
        )
