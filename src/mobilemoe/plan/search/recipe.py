"""A recipe for the chosen model: the nearest built-in one with its four stages scaled."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import gcd, log

from mobilemoe.plan.search.candidates import FLOPS_PER_PARAMETER_AND_TOKEN
from mobilemoe.plan.search.result import Plan
from mobilemoe.recipe import Parallel, Recipe, Stage, dump_recipe, load_recipe

TEMPLATES = ("nano", "s", "m", "l")
EMBEDDED = "embedded"  # a tokenizer that is trained to the vocabulary asked for


def plan_recipe(plan: Plan, name: str) -> Recipe:
    """Return a recipe called `name` that trains the chosen model.

    Data, rates, schedules and the way it runs are those of the built-in recipe of the model
    nearest in parameters that has the same vocabulary, or a tokenizer that can. If a training
    budget was given, its pre-training tokens are the plan's and the later stages keep their
    proportion to them; without one the built-in numbers stay. Contexts are at most the plan's.

    Raises:
        MobileMoEError: if the name cannot be one, or a stage would have no row.
    """
    template = _nearest(plan)
    pretrain = template.stages[0].tokens
    budgeted = plan.constraints.tokens is not None or plan.constraints.train_flops is not None
    scale = plan.chosen.tokens / pretrain if budgeted else 1.0
    context = plan.constraints.context
    return replace(
        template,
        name=name,
        model=plan.chosen.config,
        stages=tuple(_scaled(stage, scale, context) for stage in template.stages),
        parallel=_parallel(template.parallel, plan.chosen.shape.routed_experts),
    )


def recipe_text(plan: Plan, name: str) -> str:
    """Return the recipe in TOML under a comment that says where its numbers come from."""
    recipe = plan_recipe(plan, name)
    return (
        "\n".join(f"# {line}".rstrip() for line in _comment(plan, recipe))
        + "\n\n"
        + (dump_recipe(recipe))
    )


def _nearest(plan: Plan) -> Recipe:
    """Return the built-in recipe to start from."""
    vocab = plan.constraints.vocab_size
    recipes = [load_recipe(name) for name in TEMPLATES]
    suited = [recipe for recipe in recipes if recipe.model.vocab_size == vocab]
    suited = suited or [recipe for recipe in recipes if recipe.tokenizer == EMBEDDED]

    def distance(recipe: Recipe) -> float:
        return abs(log(recipe.model.total_params / plan.chosen.total_params))

    return min(suited, key=distance)


def _scaled(stage: Stage, scale: float, context: int) -> Stage:
    """Return the stage with `scale` times the tokens in rows of at most `context`."""
    row = min(stage.context, context)
    batch = max(row, stage.batch_tokens // row * row)
    changed = replace(stage, context=row, batch_tokens=batch, warmup_steps=0)
    changed = replace(changed, tokens=max(1, round(stage.tokens * scale)))
    fewer = changed.steps < stage.steps
    most = max(1, changed.steps // 10) if fewer else stage.warmup_steps
    return replace(changed, warmup_steps=min(stage.warmup_steps, most))


def _parallel(parallel: Parallel, routed_experts: int) -> Parallel:
    """Return the template's with as many devices per group as share the experts evenly."""
    group = gcd(parallel.expert_parallel, routed_experts) if routed_experts else 1
    return replace(parallel, expert_parallel=group)


def _comment(plan: Plan, recipe: Recipe) -> Iterator[str]:
    template, chosen = _nearest(plan), plan.chosen
    tokens = sum(stage.tokens for stage in recipe.stages)
    flops = FLOPS_PER_PARAMETER_AND_TOKEN * chosen.active_params * tokens
    yield f"{recipe.name}: written by `mobilemoe plan`."
    yield ""
    yield f"Data, rates and schedules are those of the built-in recipe {template.name}, whose"
    yield "model is the nearest; its comments say which of them are published."
    if recipe.stages[0].tokens == template.stages[0].tokens:
        yield "No training budget was given: the tokens are its own, too."
    else:
        yield "Pre-training has the plan's tokens; the later stages keep their share of them."
    yield f"All four stages: {tokens:.4g} tokens, {flops:.3g} FLOPs (6 N D)."
