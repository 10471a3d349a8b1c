"""How a stage is trained, besides what the stage itself says: one value for the trainer."""

from __future__ import annotations

from dataclasses import dataclass, field

from mobilemoe.recipe import Guard, Optimizer, Recipe, RoutingLosses, Run


@dataclass(frozen=True)
class Settings:
    """The parts of a recipe that the loop reads; the defaults are our choice for nano."""

    optimizer: Optimizer = field(default_factory=Optimizer)
    routing: RoutingLosses = field(default_factory=RoutingLosses)
    guard: Guard = field(default_factory=Guard)
    run: Run = field(default_factory=Run)

    @classmethod
    def of(cls, recipe: Recipe) -> Settings:
        """Return the settings of `recipe`."""
        return cls(recipe.optimizer, recipe.routing, recipe.guard, recipe.run)
