"""The bias update: direction, rate, and that the model routes with what the file can hold."""

from __future__ import annotations

import torch
from train_support import TINY, batches, stage, tiny_model

from mobilemoe.model import MoE, Routing
from mobilemoe.train import Trainer
from mobilemoe.train.balance import (
    BIAS_UPDATE_RATE,
    BiasBalancer,
    dropped_share,
    worst_load,
)


def routing(counts: list[int], dropped: int = 0) -> Routing:
    """A routing with the given loads."""
    total = sum(counts)
    ids = torch.zeros(total // 2, 2, dtype=torch.long)
    weights = torch.ones(total // 2, 2)
    return Routing(ids, weights, torch.zeros(total // 2, 6), torch.tensor(counts), dropped)


def test_bias_falls_where_load_is_high_and_rises_where_it_is_low() -> None:
    model = tiny_model()
    balancer = BiasBalancer(model)
    balancer.update([routing([9, 1, 5, 5, 5, 5]), routing([5, 5, 5, 5, 5, 5])])
    expected = torch.tensor([-1.0, 1.0, 0, 0, 0, 0]) * BIAS_UPDATE_RATE
    torch.testing.assert_close(balancer.bias[0], expected)
    assert not balancer.bias[1].any()
    assert BIAS_UPDATE_RATE == 1e-3  # the published rate


def test_small_updates_add_up_although_the_model_sees_bfloat16() -> None:
    model = tiny_model()
    balancer = BiasBalancer(model)
    balanced = routing([5, 5, 5, 5, 5, 5])
    for _ in range(1000):
        balancer.update([routing([0, 6, 6, 6, 6, 6]), balanced])
    layer = next(m for m in model.modules() if isinstance(m, MoE))
    assert abs(float(balancer.bias[0][0]) - 1.0) < 1e-3
    assert torch.equal(layer.expert_bias, balancer.bias[0].bfloat16().float())


def test_training_balances_the_experts() -> None:
    """With a hundred times the rate the effect shows within a short run."""
    trainer = Trainer(tiny_model(), stage(steps=1), batches)
    trace: list[Routing] = []
    ids = torch.from_numpy(batches(0).ids_BT)
    for _ in range(300):
        trace.clear()
        with torch.no_grad():
            trainer.model.hidden(ids, trace=trace)
            trainer._balancer.update(trace)
    first: list[Routing] = []
    with torch.no_grad():
        tiny_model().hidden(ids, trace=first)
    assert worst_load(trace) < worst_load(first)


def test_loads_and_drops_are_counted() -> None:
    trace = [routing([8, 0, 0, 0, 0, 4], dropped=3), routing([2, 2, 2, 2, 2, 2])]
    assert worst_load(trace) == 4.0
    assert dropped_share(trace) == 3 / 24
    assert worst_load([]) == 1.0
    assert dropped_share([]) == 0.0
    assert TINY.num_local_experts == 6
