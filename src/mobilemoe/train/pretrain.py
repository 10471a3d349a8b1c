"""Pre-training: everything, short context, drop-and-pad."""

from __future__ import annotations

from mobilemoe.train.stage import Stage, steps_for

BATCH, CONTEXT = 8, 256


def pretrain(tokens: int) -> Stage:
    """Return the stage for about `tokens` tokens; mixture and peak rate are our choice."""
    return Stage(
        name="pretrain",
        purpose="learn the language of code, documentation and arithmetic",
        for_domains=("code", "knowledge", "math"),
        steps=steps_for(tokens, BATCH, CONTEXT),
        batch_size=BATCH,
        context=CONTEXT,
        mixture={"code": 0.45, "knowledge": 0.35, "math": 0.2},
        peak_lr=3e-3,
        schedule="cosine",
        capacity_factor=1.5,
    )
