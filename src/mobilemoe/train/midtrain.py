"""Mid-training: more knowledge and mathematics, twice the context, linear decay."""

from __future__ import annotations

from mobilemoe.recipe import Stage

BATCH, CONTEXT = 4, 512


def midtrain(tokens: int) -> Stage:
    """Return the stage for about `tokens` tokens; mixture and peak rate are our choice."""
    stage = Stage(
        name="midtrain",
        purpose="more knowledge and mathematics at twice the context",
        for_domains=("knowledge", "math"),
        tokens=tokens,
        context=CONTEXT,
        batch_tokens=BATCH * CONTEXT,
        mixture={"code": 0.3, "knowledge": 0.4, "math": 0.3},
        lr=1e-3,
        schedule="linear",
        warmup_steps=100,
        final_lr=0.0,
        capacity_factor=1.5,
    )
    return stage.with_tokens(tokens)
