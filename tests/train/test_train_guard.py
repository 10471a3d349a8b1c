"""The guard: what is refused, that a refused step changes nothing, and how a run goes back."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from poison import KINDS, Kind, assert_same_bits, copies, poison
from train_support import TINY, batches, stage, steps_of, tiny_model

from mobilemoe.errors import MobileMoEError
from mobilemoe.recipe import Guard
from mobilemoe.train import (
    Alarm,
    ExpertLoads,
    RolledBack,
    Settings,
    StepMetrics,
    StepSkipped,
    Trainer,
    state_sha256,
)
from mobilemoe.train.detours import Detours
from mobilemoe.train.guard import WARM_STEPS, StepGuard

QUICK = Guard(window=12, max_skips=3, max_rollbacks=2)
GUESS = math.log(TINY.vocab_size)


def trainer_of(steps: int, guard: Guard = QUICK, seed: int = 0) -> Trainer:
    """A trainer of the tiny model with its guard."""
    return Trainer(tiny_model(seed), stage(steps), batches, Settings(guard=guard))


def warm(guard: StepGuard, loss: float = 3.0, norm: float = 0.5) -> StepGuard:
    """The guard after enough usual steps."""
    for _ in range(WARM_STEPS):
        guard.accept(loss, norm)
    return guard


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("is_warm", [False, True])
def test_what_is_not_finite_is_refused_at_once(bad: float, is_warm: bool) -> None:
    guard = StepGuard(QUICK, TINY, 1.0)
    guard = warm(guard) if is_warm else guard
    assert guard.verdict(bad, 0.5) == f"the loss is {bad}"
    assert guard.verdict(3.0, bad) == f"the gradient norm is {bad}"
    assert guard.verdict(3.0, 0.5) is None


def test_a_cold_guard_knows_only_absolute_limits() -> None:
    guard = StepGuard(QUICK, TINY, 1.0)
    assert guard.verdict(GUESS + 1.99, 999.0) is None
    assert "worse than guessing" in str(guard.verdict(GUESS + 2.01, 0.5))
    assert "above 1000" in str(guard.verdict(3.0, 1001.0))


def test_a_warm_guard_compares_with_the_median() -> None:
    guard = warm(StepGuard(QUICK, TINY, 0.1), loss=1.0, norm=0.5)
    assert guard.verdict(2.99, 9.9) is None
    assert "above 1.000, the median" in str(guard.verdict(3.01, 0.5))
    assert "0.5, the median" in str(guard.verdict(1.0, 10.1))


def test_one_outlier_does_not_move_the_limits() -> None:
    guard = warm(StepGuard(QUICK, TINY, 0.1), loss=1.0, norm=0.5)
    guard.accept(2.9, 9.9)
    assert guard.verdict(3.01, 0.5) is not None
    assert guard.verdict(1.0, 10.1) is not None


def test_a_usual_gradient_is_no_explosion_where_gradients_have_become_tiny() -> None:
    guard = warm(StepGuard(QUICK, TINY, 1.0), norm=1e-6)
    assert guard.verdict(3.0, 19.9) is None
    assert guard.verdict(3.0, 20.1) is not None


def test_the_window_forgets() -> None:
    guard = warm(StepGuard(QUICK, TINY, 1.0), loss=1.0)
    for _ in range(QUICK.window):
        guard.accept(2.5, 0.5)
    assert guard.verdict(4.0, 0.5) is None


@given(
    st.lists(st.tuples(st.floats(0, 5), st.floats(0, 50), st.floats(0, 3)), max_size=40),
    st.floats(0, 7),
    st.floats(0, 2000),
)
def test_the_state_makes_an_equal_guard(
    steps: list[tuple[float, float, float]], loss: float, norm: float
) -> None:
    guard, twin = StepGuard(QUICK, TINY, 1.0), StepGuard(QUICK, TINY, 1.0)
    for step_loss, step_norm, load in steps:
        guard.accept(step_loss, step_norm)
        guard.collapse(load)
    twin.load(json.loads(json.dumps(guard.state())))
    assert twin.state() == guard.state()
    assert twin.verdict(loss, norm) == guard.verdict(loss, norm)
    assert [twin.collapse(3.0) for _ in range(20)] == [guard.collapse(3.0) for _ in range(20)]


def test_the_alarm_is_raised_once_until_the_load_went_down() -> None:
    guard = StepGuard(replace(QUICK, window=4, collapse_load=2.0), TINY, 1.0)
    high = [guard.collapse(2.5) for _ in range(20)]
    assert [i for i, mean in enumerate(high) if mean is not None] == [3]
    assert [guard.collapse(1.0) for _ in range(4)] == [None] * 4
    again = [guard.collapse(2.5) for _ in range(20)]
    assert len([mean for mean in again if mean is not None]) == 1


def test_the_load_limit_is_one_that_routing_can_reach() -> None:
    assert StepGuard(Guard(collapse_load=12.0), TINY, 1.0).collapse_load == 0.8 * 6 / 2
    assert StepGuard(Guard(collapse_load=2.0), TINY, 1.0).collapse_load == 2.0


def test_the_first_return_leaves_out_the_refused_steps_and_later_ones_more() -> None:
    detours = Detours(QUICK)
    assert [detours.refuse(step) for step in (40, 41, 42)] == [False, False, True]
    detours.go_back(8)
    assert [step for step in range(100) if detours.passes_over(step)] == [40, 41, 42]
    for step in (43, 44, 45):
        detours.refuse(step)
    detours.go_back(8)
    assert [step for step in range(100) if detours.passes_over(step)] == list(range(28, 46))
    assert detours.exhausted


def test_nothing_before_the_checkpoint_is_left_out() -> None:
    detours = Detours(QUICK)
    for first in (10, 13):
        for step in range(first, first + 3):
            detours.refuse(step)
        detours.go_back(8)
    assert [step for step in range(100) if detours.passes_over(step)] == list(range(8, 16))


def test_returns_are_forgotten_after_a_window_of_good_steps_behind_the_trouble() -> None:
    detours = Detours(QUICK)
    for step in (5, 6, 7):
        detours.refuse(step)
    detours.go_back(0)
    for step in (*range(5), *range(8, 8 + QUICK.window)):
        detours.accept(step)
        assert detours.returns == 1
    detours.accept(8 + QUICK.window)
    assert detours.returns == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_refused_step_changes_no_bit_and_the_run_goes_on(kind: Kind) -> None:
    trainer = trainer_of(30)
    poison(trainer, {20}, kind)
    before, skipped, after = {}, None, []
    for event in trainer.run():
        if isinstance(event, StepSkipped):
            assert skipped is None
            skipped = event
            assert_same_bits(before, copies(trainer))
        elif isinstance(event, StepMetrics):
            before = copies(trainer)
            if skipped:
                after.append(event.step)
    assert skipped is not None
    assert (skipped.step, skipped.rows, skipped.domains) == (21, (40, 41), ("code", "code"))
    assert skipped.reason
    assert after == list(range(22, 31))
    assert (skipped.loss < GUESS) == (kind == "gradient")


def test_a_skipped_step_is_as_if_its_batch_had_never_been(tmp_path: Path) -> None:
    """The weights of a run whose batch 3 is poisoned are those of a run that never saw it."""
    trainer = trainer_of(6)
    poison(trainer, {3}, "nan")
    steps_of(trainer)
    blind = trainer_of(6)
    blind._detours._passed = {3}
    steps_of(blind)
    assert_same_bits(copies(trainer), copies(blind))


def test_steps_refused_in_a_row_send_the_run_back(tmp_path: Path) -> None:
    trainer = trainer_of(24)
    poison(trainer, {9, 10, 11, 12}, "nan")
    events = []
    for event in trainer.run(tmp_path):
        events.append(event)
        if isinstance(event, StepMetrics) and event.step % 6 == 0:
            assert trainer.save(tmp_path)
    returns = [event for event in events if isinstance(event, RolledBack)]
    assert [(event.from_step, event.to_step) for event in returns] == [(12, 6)]
    assert "loss is nan" in returns[0].reason
    position = events.index(returns[0])
    skips = [e.step for e in events[:position] if isinstance(e, StepSkipped)]
    assert skips == [10, 11, 12]
    again = [(type(e).__name__, e.step) for e in events[position + 1 :][:7] if hasattr(e, "step")]
    assert [step for _, step in again] == list(range(7, 14))
    assert [step for name, step in again if name == "StepSkipped"] == [10, 11, 12, 13]
    assert trainer.step == 24


def test_a_replay_gives_the_bits_of_the_first_time(tmp_path: Path) -> None:
    """Going back leaves out exactly the refused steps: the weights know nothing of the detour."""
    trainer = trainer_of(14)
    poison(trainer, {6, 7, 8}, "gradient")
    for event in trainer.run(tmp_path):
        if isinstance(event, StepMetrics) and event.step == 4:
            trainer.save(tmp_path)
    straight = trainer_of(14)
    straight._detours._passed = {6, 7, 8}
    steps_of(straight)
    assert_same_bits(copies(trainer), copies(straight))


def test_permanent_poison_ends_the_run_and_the_state_is_intact(tmp_path: Path) -> None:
    trainer = trainer_of(60)
    poison(trainer, range(10, 1000), "nan")
    returns = []
    with pytest.raises(MobileMoEError, match="3 steps in a row were refused") as caught:
        for event in trainer.run(tmp_path):
            if isinstance(event, StepMetrics) and event.step == 8:
                trainer.save(tmp_path)
            returns += [event] if isinstance(event, RolledBack) else []
    assert len(returns) == QUICK.max_rollbacks
    assert "after going back 2 times" in caught.value.message
    assert "is intact" in caught.value.hint
    again = trainer_of(60, seed=5)
    assert again.resume(tmp_path)
    assert again.step == 8


def test_without_a_folder_there_is_nothing_to_go_back_to() -> None:
    trainer = trainer_of(20)
    poison(trainer, range(1000), "nan")
    with pytest.raises(MobileMoEError, match="no checkpoint"):
        list(trainer.run())
    assert trainer.step == QUICK.max_skips


def test_a_run_with_a_folder_can_go_back_to_its_start(tmp_path: Path) -> None:
    trainer = trainer_of(8)
    poison(trainer, {1, 2, 3}, "nan")
    events = list(trainer.run(tmp_path / "deep" / "folder"))
    assert [e.to_step for e in events if isinstance(e, RolledBack)] == [0]
    assert trainer.step == 8


def test_nothing_is_saved_in_trouble_except_at_the_end(tmp_path: Path) -> None:
    trainer = trainer_of(8)
    poison(trainer, {4, 7}, "nan")
    saved = []
    for event in trainer.run():
        if isinstance(event, StepMetrics | StepSkipped) and trainer.save(tmp_path):
            saved.append(event.step)
    assert saved == [1, 2, 3, 4, 6, 7, 8]


@pytest.mark.parametrize("stop_after", [8, 10])
def test_a_run_that_stops_around_trouble_resumes_to_the_same_bits(
    stop_after: int, tmp_path: Path
) -> None:
    """Windows, counters and what is left out are part of the state."""

    def train(folder: Path, until: int = 20, seed: int = 0) -> None:
        trainer = trainer_of(20, seed=seed)
        poison(trainer, {7, 8, 9, 13}, "nan")
        trainer.resume(folder)
        for event in trainer.run(folder):
            if isinstance(event, StepMetrics) and event.step % 4 == 0:
                trainer.save(folder)
            if isinstance(event, StepMetrics | StepSkipped) and event.step == until != 20:
                return

    train(tmp_path / "whole")
    train(tmp_path / "halves", until=stop_after)
    train(tmp_path / "halves", seed=9)
    assert state_sha256(tmp_path / "whole") == state_sha256(tmp_path / "halves")


def test_collapse_is_announced_once_and_training_goes_on() -> None:
    guard = replace(QUICK, window=3, collapse_load=1.05)
    events = list(trainer_of(8, guard).run())
    alarms = [event for event in events if isinstance(event, Alarm)]
    assert len(alarms) == 1
    assert (alarms[0].step, alarms[0].kind) == (3, "expert_collapse")
    assert "MoE layer" in alarms[0].message
    assert len([e for e in events if isinstance(e, StepMetrics)]) == 8


def test_expert_loads_add_up_to_all_choices_of_accepted_steps(tmp_path: Path) -> None:
    trainer = trainer_of(25)
    poison(trainer, {12}, "nan")
    events = list(trainer.run())
    loads = [event for event in events if isinstance(event, ExpertLoads)]
    assert [event.step for event in loads] == [10, 20, 25]
    total = torch.tensor([event.tokens_per_expert for event in loads]).sum(0)
    choices = 24 * 32 * TINY.num_experts_per_tok
    assert total.sum(1).tolist() == [choices] * TINY.num_hidden_layers
    assert isinstance(events[-1], StepMetrics)


def test_a_long_stage_reports_its_loads_two_hundred_times() -> None:
    trainer = Trainer(tiny_model(), stage(6000), batches)
    trainer.step = 29
    events = list(zip(range(3), trainer.run(), strict=False))
    assert [e.step for _, e in events if isinstance(e, ExpertLoads)] == [30]
