"""Recipes: what is trained, on what, in which four stages, and how it runs; read from TOML."""

from __future__ import annotations

from mobilemoe.recipe.dump import dump_recipe
from mobilemoe.recipe.identity import Change, difference, recipe_id
from mobilemoe.recipe.load import builtin_recipes, load_recipe, parse_recipe
from mobilemoe.recipe.overrides import Override, parse_override
from mobilemoe.recipe.recipe import Recipe
from mobilemoe.recipe.schema import Guard, Optimizer, Parallel, RoutingLosses, Run, Source
from mobilemoe.recipe.stage import STAGE_NAMES, Stage

__all__ = [
    "STAGE_NAMES",
    "Change",
    "Guard",
    "Optimizer",
    "Override",
    "Parallel",
    "Recipe",
    "RoutingLosses",
    "Run",
    "Source",
    "Stage",
    "builtin_recipes",
    "difference",
    "dump_recipe",
    "load_recipe",
    "parse_override",
    "parse_recipe",
    "recipe_id",
]
