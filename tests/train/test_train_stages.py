"""The four stages: what the publication fixes, and the schedules' shapes."""

from __future__ import annotations

import pytest
from train_support import stage

from mobilemoe.demo.stages import STARTS, demo_stages
from mobilemoe.recipe import Stage

ALL = {name: stage.with_tokens(10**6) for name, stage in demo_stages().items()}


def test_published_dispatch_and_schedules() -> None:
    drops = {name: s.capacity_factor for name, s in ALL.items()}
    assert drops == {"pretrain": 1.5, "midtrain": 1.5, "sft": None, "qat": None, "control": None}
    schedules = {name: s.schedule for name, s in ALL.items()}
    assert schedules.pop("midtrain") == "linear"
    assert set(schedules.values()) == {"cosine"}
    assert [name for name, s in ALL.items() if s.fake_quant] == ["qat"]


def test_every_stage_starts_from_one_before_it() -> None:
    assert list(ALL) == list(STARTS)
    before: set[str | None] = {None}
    for name, start in STARTS.items():
        assert start in before
        before.add(name)


def test_context_grows_after_pretraining() -> None:
    assert ALL["pretrain"].context < ALL["midtrain"].context == ALL["sft"].context


def test_control_differs_from_qat_only_in_the_rounding() -> None:
    ours, control_values = vars(ALL["qat"]), vars(ALL["control"])
    different = {key for key, value in ours.items() if control_values[key] != value}
    assert different == {"name", "fake_quant", "int8_activations"}


@pytest.mark.parametrize("s", ALL.values(), ids=ALL.keys())
def test_learning_rate_warms_up_and_decays(s: Stage) -> None:
    rates = [s.lr_at(step) for step in range(s.steps)]
    peak = rates.index(max(rates))
    assert max(rates) == pytest.approx(s.lr)
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    floor = 0.0 if s.schedule == "linear" else 0.1 * s.lr
    assert rates[-1] == pytest.approx(floor, abs=0.02 * s.lr)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_even_the_shortest_stage_learns(steps: int) -> None:
    assert all(stage(steps).lr_at(step) > 0 for step in range(steps))


def test_tokens_become_steps() -> None:
    assert ALL["pretrain"].steps * ALL["pretrain"].tokens_per_step == pytest.approx(10**6, rel=1e-2)
    assert ALL["pretrain"].with_tokens(1).steps == 1
