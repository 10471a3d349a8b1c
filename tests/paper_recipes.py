"""Recipes of the paper's sizes as the cluster plan needs them; no file is read."""

from __future__ import annotations

from dataclasses import replace

from mobilemoe.config import ModelConfig
from mobilemoe.recipe import Optimizer, Parallel, Recipe, RoutingLosses, Run, Source, Stage

BATCH_TOKENS = 2**22  # not published


def stage(name: str, tokens: float, context: int, capacity: float | None) -> Stage:
    """A stage with the published tokens and context; what a plan does not read is arbitrary."""
    return Stage(
        name=name,
        purpose="test",
        for_domains=("web",),
        tokens=int(tokens),
        context=context,
        batch_tokens=BATCH_TOKENS,
        mixture={"web": 1.0},
        lr=4e-4,
        schedule="cosine",
        warmup_steps=2000,
        final_lr=0.1,
        capacity_factor=capacity,
        fake_quant=name == "qat",
    )


# arXiv 2605.27358
STAGES = (
    stage("pretrain", 6e12, 2048, 1.5),
    stage("midtrain", 500e9, 8192, 1.5),
    stage("sft", 126e9, 8192, None),
    stage("qat", 21e9, 8192, None),
)


def paper_recipe(
    size: str = "S",
    *,
    expert_parallel: int = 4,
    micro_batch_rows: int | None = 2,
    activation_checkpointing: bool = False,
    stages: tuple[Stage, ...] = STAGES,
) -> Recipe:
    """The recipe of a preset in bf16 with expert parallelism 4, as published."""
    return Recipe(
        name=size.lower(),
        model=ModelConfig.preset(size),
        seed=0,
        tokenizer="embedded",
        sources={"web": Source("web", "txt", "web/*.txt", "web", "cc0-1.0")},
        optimizer=Optimizer(),
        routing=RoutingLosses(),
        stages=stages,
        run=Run(
            precision="bf16",
            micro_batch_rows=micro_batch_rows,
            activation_checkpointing=activation_checkpointing,
        ),
        parallel=Parallel(expert_parallel=expert_parallel),
    )


def olmoe_recipe() -> Recipe:
    """OLMoE-1B-7B as it was trained (arXiv 2409.02060): FSDP, dropless, 1024 rows of 4096."""
    pretrain = replace(stage("pretrain", 5.133e12, 4096, None), batch_tokens=1024 * 4096)
    return paper_recipe("olmoe-1b-7b", expert_parallel=1, stages=(pretrain,))
