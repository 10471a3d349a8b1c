"""kill -9 of the program that users run, in every stage, again and again."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from kill_resume import kill_and_compare
from pipeline_support import write_inputs

KILLS = 25
STEPS = 480  # in each stage: enough for the steps between its kills
STAGES = ("pretrain", "midtrain", "sft", "qat")
LENGTH = tuple(f"{name}.tokens={256 * STEPS}" for name in STAGES)


@pytest.mark.slow
def test_25_kills_in_each_stage_of_the_program_change_no_bit(tmp_path: Path) -> None:
    """States, checkpoints, held-out losses, and loss and gradient norm of every single step."""
    result = kill_and_compare(write_inputs(tmp_path), tmp_path, KILLS, LENGTH)
    assert result.different == ()
    assert Counter(kill.stage for kill in result.kills) == dict.fromkeys(STAGES, KILLS)
    for name in STAGES:
        lost = {kill.step - kill.saved_step for kill in result.kills if kill.stage == name}
        assert max(lost) > 0, "some kills must hit what no state holds yet"
        assert len({kill.step for kill in result.kills if kill.stage == name}) > KILLS // 2
