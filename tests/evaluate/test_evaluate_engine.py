"""Held-out loss on the engine against the same loss in torch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_evaluate_heldout import CONFIG, some_batches

from mobilemoe import MobileMoEError
from mobilemoe.checkpoint import init_checkpoint
from mobilemoe.data import IGNORED, Batch
from mobilemoe.engine import load
from mobilemoe.evaluate.engine_loss import engine_heldout_loss
from mobilemoe.evaluate.heldout import heldout_loss
from mobilemoe.model import MobileMoE


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluate") / "model"
    return init_checkpoint(folder, replace(CONFIG, num_key_value_heads=2), "bf16", 0)


def test_it_is_the_loss_of_torch(checkpoint):
    batches = some_batches(2)
    expected = heldout_loss(MobileMoE.from_pretrained(checkpoint), batches)
    actual = engine_heldout_loss(load(checkpoint.folder, 1), batches)
    assert actual.tokens == expected.tokens
    np.testing.assert_allclose(actual.loss_sums, expected.loss_sums, rtol=1e-5)


def test_a_row_without_scored_tokens_adds_nothing(checkpoint):
    ids_BT = np.ones((1, 4), np.int64)
    batch = Batch(ids_BT, np.full_like(ids_BT, IGNORED), ("text",))
    loss = engine_heldout_loss(load(checkpoint.folder, 1), [batch])
    assert (loss.loss_sums, loss.tokens) == ((0.0,), (0,))


def test_a_row_longer_than_the_context_is_refused(checkpoint):
    with pytest.raises(MobileMoEError, match="at most"):
        engine_heldout_loss(load(checkpoint.folder, 1, 9), some_batches(1))
