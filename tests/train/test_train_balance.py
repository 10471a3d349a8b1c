"""The bias update: direction, rate, and that the model routes with what the file can hold."""

from __future__ import annotations

import pytest
import torch
from train_support import batches, stage, steps_of, tiny_model

from mobilemoe.model import MoE, Routing
from mobilemoe.recipe import RoutingLosses
from mobilemoe.train import Trainer
from mobilemoe.train.balance import BiasBalancer, fullest_expert, worst_load

RATE = 1e-3  # the published rate


def test_bias_falls_where_load_is_high_and_rises_where_it_is_low() -> None:
    balancer = BiasBalancer(tiny_model(), RATE)
    balancer.update(torch.tensor([[9, 1, 5, 5, 5, 5], [5, 5, 5, 5, 5, 5]]))
    expected = torch.tensor([-1.0, 1.0, 0, 0, 0, 0]) * RATE
    torch.testing.assert_close(balancer.bias[0], expected)
    assert not balancer.bias[1].any()
    assert RoutingLosses().bias_update_rate == RATE


def test_small_updates_add_up_although_the_model_sees_bfloat16() -> None:
    model = tiny_model()
    balancer = BiasBalancer(model, RATE)
    for _ in range(1000):
        balancer.update(torch.tensor([[0, 6, 6, 6, 6, 6], [5, 5, 5, 5, 5, 5]]))
    layer = next(m for m in model.modules() if isinstance(m, MoE))
    assert abs(float(balancer.bias[0][0]) - 1.0) < 1e-3
    assert torch.equal(layer.expert_bias, balancer.bias[0].bfloat16().float())


def test_training_balances_the_experts() -> None:
    trainer = Trainer(tiny_model(), stage(steps=1), batches)
    ids = torch.from_numpy(batches(0).ids_BT)
    loads = []
    for _ in range(300):
        counts_LE = counts(trainer, ids)
        loads.append(worst_load(counts_LE))
        trainer._balancer.update(counts_LE)
    assert loads[-1] < loads[0]


@torch.no_grad()
def counts(trainer: Trainer, ids: torch.Tensor) -> torch.Tensor:
    """The choices [L, E] of one forward pass."""
    trace: list[Routing] = []
    trainer.model.hidden(ids, trace=trace)
    return torch.stack([routing.tokens_per_expert_E for routing in trace])


def test_the_worst_load_is_a_multiple_of_its_layers_mean() -> None:
    assert worst_load(torch.tensor([[8, 0, 0, 0, 0, 4], [2, 2, 2, 2, 2, 2]])) == 4.0
    assert worst_load(torch.zeros(0, 0)) == 1.0


def test_the_fullest_expert_is_that_of_the_worst_load() -> None:
    assert fullest_expert(torch.tensor([[9, 9, 9, 9, 9, 9], [1, 1, 1, 1, 2, 0]])) == (1, 4)


def test_dropped_choices_are_counted_over_the_whole_step() -> None:
    (metrics,) = steps_of(Trainer(tiny_model(), stage(steps=1, capacity=0.5), batches))
    ids = torch.from_numpy(batches(0).ids_BT)
    trace: list[Routing] = []
    tiny_model().hidden(ids, capacity_factor=0.5, trace=trace)
    dropped = sum(routing.dropped for routing in trace)
    assert dropped > 0
    assert metrics.dropped_share == pytest.approx(dropped / (2 * ids.numel() * 2))
