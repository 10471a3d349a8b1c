"""The chunked cross-entropy and the z-loss against plain torch."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from train_support import batches, tiny_model

from mobilemoe.model import Routing
from mobilemoe.train.loss import CHUNK_LOGITS, MIN_ROWS, cross_entropy, router_z_loss


@pytest.mark.parametrize("rows", [1, 7, MIN_ROWS, 2 * MIN_ROWS + 3])
def test_value_and_gradients_equal_the_unfused_loss(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CHUNK_LOGITS, "cpu", 1)  # the smallest pieces
    generator = torch.Generator().manual_seed(rows)
    h = torch.randn(rows, 8, generator=generator, requires_grad=True)
    weight = torch.randn(20, 8, generator=generator, requires_grad=True)
    targets = torch.randint(0, 20, (rows,), generator=generator)
    targets[::5] = -100
    targets[-1] = 3
    logits = h @ weight.T
    expected = F.cross_entropy(logits, targets, ignore_index=-100, reduction="sum")
    each = F.cross_entropy(logits, targets, ignore_index=-100, reduction="none")
    expected_gradients = torch.autograd.grad(3 * expected, (h, weight))
    actual = cross_entropy(h, weight, targets)
    gradients = torch.autograd.grad(3 * actual.total, (h, weight))
    torch.testing.assert_close(actual.total, expected)
    torch.testing.assert_close(actual.each_N, each)
    for ours, theirs in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_nothing_to_learn_is_zero_loss_and_zero_gradient() -> None:
    h = torch.randn(3, 8, requires_grad=True)
    weight = torch.randn(20, 8, requires_grad=True)
    loss = cross_entropy(h, weight, torch.full((3,), -100)).total
    loss.backward()
    assert loss.item() == 0
    assert h.grad is not None
    assert not h.grad.any()


def test_ignored_targets_do_not_move_the_model() -> None:
    """Changing the id behind an ignored target changes nothing in the loss."""
    model, batch = tiny_model(), batches(0)
    ids = torch.from_numpy(batch.ids_BT)
    targets = torch.from_numpy(batch.targets_BT).flatten()
    h = model.hidden(ids).flatten(0, 1)
    kept = targets != -100
    expected = F.cross_entropy((h @ model.head_weight.T)[kept], targets[kept], reduction="sum")
    torch.testing.assert_close(cross_entropy(h, model.head_weight, targets).total, expected)


def test_z_loss_is_the_mean_squared_logsumexp() -> None:
    logits = torch.tensor([[0.0, 1.0], [2.0, -1.0], [0.5, 0.5]])
    routing = Routing(torch.zeros(3, 1, dtype=torch.long), torch.ones(3, 1), logits, torch.ones(2))
    by_hand = sum(float(torch.log(torch.exp(row).sum())) ** 2 for row in logits) / 3
    assert float(router_z_loss([routing, routing])) == pytest.approx(by_hand)


def test_z_loss_of_a_dense_model_is_zero() -> None:
    assert float(router_z_loss([])) == 0
