"""The paper's sizes as the cluster plan is asked for them."""

from __future__ import annotations

from dataclasses import replace

from mobilemoe.config import ModelConfig
from mobilemoe.recipe import Recipe, Stage, load_recipe


def paper_recipe(size: str = "S", *overrides: str, rows: int = 2) -> Recipe:
    """The built-in recipe of S, M or L with `rows` rows at a time and all activations kept."""
    plain = (f"run.micro_batch_rows={rows}", "run.activation_checkpointing=false")
    return load_recipe(size.lower(), [*plain, *overrides])


CHECKPOINTING = "run.activation_checkpointing=true"
PRETRAIN: Stage = paper_recipe().stage("pretrain")
MIDTRAIN: Stage = paper_recipe().stage("midtrain")
QAT: Stage = paper_recipe().stage("qat")


def olmoe_recipe() -> Recipe:
    """OLMoE-1B-7B as it was pre-trained: FSDP, dropless, 1024 rows of 4096 (arXiv 2409.02060)."""
    recipe = paper_recipe("S", "parallel.expert_parallel=1")
    pretrain = replace(
        recipe.stages[0],
        tokens=5_133_000_000_000,
        context=4096,
        batch_tokens=1024 * 4096,
        capacity_factor=None,
    )
    model = ModelConfig.preset("olmoe-1b-7b")
    return replace(recipe, model=model, stages=(pretrain, *recipe.stages[1:]))
