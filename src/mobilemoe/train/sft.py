"""Instruction tuning: conversations, loss on the assistant's tokens, dropless."""

from __future__ import annotations

from mobilemoe.train.stage import Stage, steps_for

BATCH, CONTEXT = 4, 512


def sft(tokens: int) -> Stage:
    """Return the stage for about `tokens` tokens; a fifth replays plain text (our choice)."""
    return Stage(
        name="sft",
        purpose="answer in turns: explain, finish a function, solve with steps",
        for_domains=("instruct",),
        steps=steps_for(tokens, BATCH, CONTEXT),
        batch_size=BATCH,
        context=CONTEXT,
        mixture={"instruct": 0.8, "code": 0.08, "knowledge": 0.06, "math": 0.06},
        peak_lr=8e-4,
        schedule="cosine",
        capacity_factor=None,
    )
