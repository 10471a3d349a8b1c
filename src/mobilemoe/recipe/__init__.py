"""Recipes: what is trained, on what, in which four stages, and how it runs; read from TOML."""

from __future__ import annotations

from mobilemoe.recipe.schema import (
    Guard,
    Optimizer,
    Parallel,
    Recipe,
    RoutingLosses,
    Run,
    Source,
)
from mobilemoe.recipe.stage import STAGE_NAMES, Stage

__all__ = [
    "STAGE_NAMES",
    "Guard",
    "Optimizer",
    "Parallel",
    "Recipe",
    "RoutingLosses",
    "Run",
    "Source",
    "Stage",
]
