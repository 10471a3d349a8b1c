"""INT4 quantisation-aware training, and its control: the same tokens in plain float."""

from __future__ import annotations

from dataclasses import replace

from mobilemoe.train.stage import Stage, steps_for

BATCH, CONTEXT = 4, 512


def qat(tokens: int) -> Stage:
    """Return the stage for about `tokens` tokens; half conversations, half text (our choice)."""
    return Stage(
        name="qat",
        purpose="keep what was learned when the weights become INT4",
        for_domains=("code", "knowledge", "math", "instruct"),
        steps=steps_for(tokens, BATCH, CONTEXT),
        batch_size=BATCH,
        context=CONTEXT,
        mixture={"instruct": 0.5, "code": 0.2, "knowledge": 0.15, "math": 0.15},
        peak_lr=2e-4,
        schedule="cosine",
        capacity_factor=None,
        fake_quant=True,
    )


def control(tokens: int) -> Stage:
    """Return QAT without quantisation: what the extra tokens alone would have given."""
    return replace(qat(tokens), name="control", fake_quant=False)
