"""INT4 quantisation-aware training, and its control: the same tokens in plain float."""

from __future__ import annotations

from dataclasses import replace

from mobilemoe.recipe import Stage

BATCH, CONTEXT = 4, 512


def qat(tokens: int) -> Stage:
    """Return the stage for about `tokens` tokens; half conversations, half text (our choice)."""
    stage = Stage(
        name="qat",
        purpose="keep what was learned when the weights become INT4",
        for_domains=("code", "knowledge", "math", "instruct"),
        tokens=tokens,
        context=CONTEXT,
        batch_tokens=BATCH * CONTEXT,
        mixture={"instruct": 0.5, "code": 0.2, "knowledge": 0.15, "math": 0.15},
        lr=2e-4,
        schedule="cosine",
        warmup_steps=100,
        final_lr=0.1,
        capacity_factor=None,
        fake_quant=True,
    )
    return stage.with_tokens(tokens)


def control(tokens: int) -> Stage:
    """Return QAT without quantisation: what the extra tokens alone would have given."""
    return replace(qat(tokens), name="control", fake_quant=False)
