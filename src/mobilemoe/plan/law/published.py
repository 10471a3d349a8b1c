"""What the paper published, as data (published.json) with its source and its confidence."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from mobilemoe.plan.law.files import law_from_document
from mobilemoe.plan.law.moe import MoELaw


@dataclass(frozen=True)
class SharedExpertEffect:
    """The capacity coefficients of two fits that differ in the shared expert.

    The exponents and the floor of these fits are not known, so no loss follows from them and
    this has no method that gives one. Only `capacity_ratio` is usable, and only as far as the
    two fits share their exponents.
    """

    with_shared: float
    without_shared: float
    expert_equivalents: int
    granularity: int
    source: str
    confidence: str

    @property
    def capacity_ratio(self) -> float:
        """The capacity term with a shared expert, relative to the one without."""
        return self.with_shared / self.without_shared


@cache
def published_law() -> MoELaw:
    """Return the joint fit of the paper's sweep over E (arXiv 2605.27358)."""
    law = law_from_document(_document()["law"], "the published law")
    assert isinstance(law, MoELaw)
    return law


@cache
def published_shared_expert() -> SharedExpertEffect:
    """Return what the paper tells of its fits with and without a shared expert."""
    return SharedExpertEffect(**_document()["shared_expert"])


def _document() -> dict[str, Any]:
    text = (files("mobilemoe.plan.law") / "published.json").read_text(encoding="utf-8")
    document: dict[str, Any] = json.loads(text)
    return document
