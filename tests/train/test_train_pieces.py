"""Pieces of a step, recomputed layers and compiled parts change nothing but rounding."""

from __future__ import annotations

import pytest
import torch
from train_support import batches, stage, tiny_model

from mobilemoe.recipe import Run, Stage
from mobilemoe.train import Settings, StepMetrics, Trainer
from mobilemoe.train.speedups import speed_up


def steps(s: Stage, run: Run) -> list[StepMetrics]:
    """The metrics of a short run."""
    trainer = Trainer(speed_up(tiny_model(), run), s, batches, Settings(run=run))
    return [event for event in trainer.run() if isinstance(event, StepMetrics)]


def same_curve(ours: list[StepMetrics], plain: list[StepMetrics], tolerance: float) -> None:
    """Both runs saw the same losses, loads and gradients."""
    for a, b in zip(ours, plain, strict=True):
        assert a.loss == pytest.approx(b.loss, rel=tolerance)
        assert a.grad_norm == pytest.approx(b.grad_norm, rel=10 * tolerance)
        assert a.z_loss == pytest.approx(b.z_loss, rel=tolerance)
        assert a.router_entropy == pytest.approx(b.router_entropy, rel=tolerance)
        assert a.worst_load == b.worst_load
        assert a.domain_loss == pytest.approx(b.domain_loss, rel=tolerance)


@pytest.mark.parametrize("fake_quant", [False, True])
def test_one_row_at_a_time_is_the_whole_step(fake_quant: bool) -> None:
    s = stage(8, fake_quant=fake_quant)
    # A weight that rounds the other way after a step is a larger difference than any sum's order.
    tolerance = 1e-3 if fake_quant else 1e-5
    same_curve(steps(s, Run(micro_batch_rows=1)), steps(s, Run()), tolerance)


@pytest.mark.parametrize("s", [stage(8, capacity=1.0), stage(8, fake_quant=True)])
def test_recomputed_layers_give_the_same_bits(s: Stage) -> None:
    ours, plain = steps(s, Run(activation_checkpointing=True)), steps(s, Run())
    assert [m.loss for m in ours] == [m.loss for m in plain]
    assert [m.dropped_share for m in ours] == [m.dropped_share for m in plain]
    assert [m.worst_load for m in ours] == [m.worst_load for m in plain]


def test_bfloat16_products_learn_the_same_task() -> None:
    wide, narrow = steps(stage(40), Run()), steps(stage(40), Run(precision="bf16"))
    assert narrow[-1].loss < 0.5 * narrow[0].loss
    assert narrow[0].loss == pytest.approx(wide[0].loss, rel=1e-2)
    assert narrow[0].loss != wide[0].loss


@pytest.mark.slow
def test_compiled_parts_give_the_same_curve() -> None:
    same_curve(steps(stage(4), Run(compile=True)), steps(stage(4), Run()), 1e-4)
    torch.compiler.reset()
