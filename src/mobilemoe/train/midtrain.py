"""Mid-training: more knowledge and mathematics, twice the context, linear decay."""

from __future__ import annotations

from mobilemoe.train.stage import Stage, steps_for

BATCH, CONTEXT = 4, 512


def midtrain(tokens: int) -> Stage:
    """Return the stage for about `tokens` tokens; mixture and peak rate are our choice."""
    return Stage(
        name="midtrain",
        purpose="more knowledge and mathematics at twice the context",
        for_domains=("knowledge", "math"),
        steps=steps_for(tokens, BATCH, CONTEXT),
        batch_size=BATCH,
        context=CONTEXT,
        mixture={"code": 0.3, "knowledge": 0.4, "math": 0.3},
        peak_lr=1e-3,
        schedule="linear",
        capacity_factor=1.5,
    )
