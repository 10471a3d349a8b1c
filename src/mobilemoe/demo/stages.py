"""The demo's stages: the four of the built-in nano recipe, and a control of the last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mobilemoe.recipe import Stage, load_recipe

# Each stage of a run, and the one whose weights it starts from.
STARTS: Mapping[str, str | None] = {
    "pretrain": None,
    "midtrain": "pretrain",
    "sft": "midtrain",
    "qat": "sft",
    "control": "sft",
}


def demo_stages() -> dict[str, Stage]:
    """Return the stages in the order of `STARTS`; `with_tokens` gives them a run's length."""
    stages = {stage.name: stage for stage in load_recipe("nano").stages}
    return stages | {"control": control_of(stages["qat"])}


def control_of(qat: Stage) -> Stage:
    """Return QAT without quantisation: what the extra tokens alone would have given."""
    return replace(qat, name="control", fake_quant=False, int8_activations=False)
