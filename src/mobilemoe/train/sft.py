"""Instruction tuning: conversations, loss on the assistant's tokens, dropless."""

from __future__ import annotations

from mobilemoe.recipe import Stage

BATCH, CONTEXT = 4, 512


def sft(tokens: int) -> Stage:
    """Return the stage for about `tokens` tokens; a fifth replays plain text (our choice)."""
    stage = Stage(
        name="sft",
        purpose="answer in turns: explain, finish a function, solve with steps",
        for_domains=("instruct",),
        tokens=tokens,
        context=CONTEXT,
        batch_tokens=BATCH * CONTEXT,
        mixture={"instruct": 0.8, "code": 0.08, "knowledge": 0.06, "math": 0.06},
        lr=8e-4,
        schedule="cosine",
        warmup_steps=100,
        final_lr=0.1,
        capacity_factor=None,
    )
    return stage.with_tokens(tokens)
