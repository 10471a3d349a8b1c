"""Pre-training: everything, short context, drop-and-pad."""

from __future__ import annotations

from mobilemoe.recipe import Stage

BATCH, CONTEXT = 8, 256


def pretrain(tokens: int) -> Stage:
    """Return the stage for about `tokens` tokens; mixture and peak rate are our choice."""
    stage = Stage(
        name="pretrain",
        purpose="learn the language of code, documentation and arithmetic",
        for_domains=("code", "knowledge", "math"),
        tokens=tokens,
        context=CONTEXT,
        batch_tokens=BATCH * CONTEXT,
        mixture={"code": 0.45, "knowledge": 0.35, "math": 0.2},
        lr=3e-3,
        schedule="cosine",
        warmup_steps=100,
        final_lr=0.1,
        capacity_factor=1.5,
    )
    return stage.with_tokens(tokens)
