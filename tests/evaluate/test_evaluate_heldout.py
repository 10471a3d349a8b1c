"""Held-out loss, the paired gap, and the agreement of logits.

B batch, T tokens, V vocabulary.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilemoe.config import ModelConfig
from mobilemoe.data import IGNORED, Batch
from mobilemoe.evaluate.heldout import (
    HeldoutLoss,
    heldout_loss,
    mean_over_domains,
    paired_gap,
    perplexities,
    relative_error,
    row_cosines,
)
from mobilemoe.model import MobileMoE

CONFIG = ModelConfig(
    vocab_size=24,
    hidden_size=32,
    intermediate_size=32,
    intermediate_size_mlp=32,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=16,
    num_local_experts=4,
    num_experts_per_tok=2,
    max_position_embeddings=64,
)


def some_batches(count: int) -> list[Batch]:
    rng = np.random.default_rng(0)
    batches = []
    for _ in range(count):
        ids_BT = rng.integers(0, 24, (3, 10))
        targets_BT = rng.integers(0, 24, (3, 10))
        targets_BT[rng.random((3, 10)) < 0.3] = IGNORED
        batches.append(Batch(ids_BT, targets_BT, ("text",) * 3))
    return batches


def random_losses(seed: int, shift: float = 0.0, rows: int = 200) -> HeldoutLoss:
    """Return rows of 50 tokens; hard rows are hard for every seed, `shift` is nats per token."""
    difficulty = np.random.default_rng(99).gamma(4, 0.5, rows)
    noise = np.random.default_rng(seed).normal(0, 0.05, rows)
    sums = 50 * (difficulty + noise + shift)
    return HeldoutLoss(tuple(sums.tolist()), (50,) * rows)


@torch.no_grad()
def test_loss_equals_a_loop_over_tokens():
    model = MobileMoE(CONFIG).init_weights(torch.Generator().manual_seed(0))
    batches = some_batches(2)
    result = heldout_loss(model, batches)
    sums, tokens = [], []
    for batch in batches:
        for ids_T, targets_T in zip(batch.ids_BT, batch.targets_BT, strict=True):
            logits_TV = model(torch.from_numpy(ids_T)[None])[0].double().numpy()
            scored = [(t, v) for t, v in enumerate(targets_T) if v != IGNORED]
            sums.append(
                sum(np.log(np.exp(logits_TV[t]).sum()) - logits_TV[t, v] for t, v in scored)
            )
            tokens.append(len(scored))
    assert result.tokens == tuple(tokens)
    np.testing.assert_allclose(result.loss_sums, sums, rtol=1e-5)
    assert result.mean == pytest.approx(sum(sums) / sum(tokens), rel=1e-5)
    assert result.perplexity == pytest.approx(math.exp(result.mean))


@pytest.mark.parametrize("training", [True, False])
def test_scoring_leaves_the_model_as_it_was(training):
    model = MobileMoE(CONFIG).init_weights(torch.Generator().manual_seed(0)).train(training)
    heldout_loss(model, some_batches(1))
    assert model.training is training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_rows_without_scored_tokens_count_nothing():
    model = MobileMoE(CONFIG).init_weights(torch.Generator().manual_seed(0))
    batch = some_batches(1)[0]
    batch.targets_BT[1] = IGNORED
    result = heldout_loss(model, [batch])
    assert result.tokens[1] == 0
    assert result.loss_sums[1] == 0
    assert HeldoutLoss((0.0,), (0,)).mean == 0


def test_every_domain_counts_the_same():
    losses = {"a": HeldoutLoss((2.0, 4.0), (1, 1)), "b": HeldoutLoss((100.0,), (100,))}
    assert mean_over_domains(losses) == 2.0
    values = perplexities(losses)
    assert list(values) == ["a", "b", "mean"]
    assert values["a"] == pytest.approx(math.exp(3))
    assert values["mean"] == pytest.approx(math.exp(2))  # not the mean of the perplexities


@pytest.mark.parametrize("planted", [-0.1, 0.0, 0.02, 0.5])
def test_the_interval_covers_a_planted_gap(planted):
    losses = {"a": random_losses(1, planted), "b": random_losses(2, planted)}
    baseline = {"a": random_losses(3), "b": random_losses(4)}
    gap, low, high = paired_gap(losses, baseline, seed=0)
    assert low < gap < high
    assert low < planted < high
    # The pairing removes the rows' difficulty (spread 1): what is left is noise of
    # 0.05 x sqrt(2) per row and domain, 400 rows in all; 1.96 standard errors to each side.
    half = 1.96 * 0.05 * math.sqrt(2) / math.sqrt(400)
    assert (high - low) / 2 == pytest.approx(half, rel=0.25)


def test_the_interval_covers_in_about_95_of_100_cases():
    covered = 0
    for seed in range(100):
        _, low, high = paired_gap(
            {"a": random_losses(2 * seed, 0.03)}, {"a": random_losses(2 * seed + 1)}, seed
        )
        covered += low < 0.03 < high
    assert 88 <= covered <= 100  # binomial(100, 0.95): below 88 once in a thousand


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.floats(-1, 1))
def test_swapping_the_models_mirrors_the_gap(seed, shift):
    one, other = {"a": random_losses(1, shift, 20)}, {"a": random_losses(2, rows=20)}
    gap, low, high = paired_gap(one, other, seed)
    mirrored = paired_gap(other, one, seed)
    assert mirrored == pytest.approx((-gap, -high, -low), abs=1e-12)


def test_equal_models_have_no_gap_and_the_seed_decides_the_interval():
    losses = {"a": random_losses(1)}
    assert paired_gap(losses, losses, seed=0) == (0, 0, 0)
    other = {"a": random_losses(2)}
    assert paired_gap(losses, other, seed=5) == paired_gap(losses, other, seed=5)
    assert paired_gap(losses, other, seed=5) != paired_gap(losses, other, seed=6)


def test_relative_error_is_the_norm_of_the_difference():
    expected = np.array([[3.0, 4.0]], np.float32)
    assert relative_error(expected, expected) == 0
    assert relative_error(np.zeros((1, 2), np.float32), expected) == 1
    actual = expected + np.array([[0.3, 0.4]], np.float32)
    assert relative_error(actual, expected) == pytest.approx(0.1, rel=1e-6)


def test_row_cosines_compare_directions_row_by_row():
    a_TV = np.array([[1, 0], [1, 1], [2, 0], [1, 2]], np.float32)
    b_TV = np.array([[5, 0], [-1, -1], [0, 3], [2, 1]], np.float32)
    assert row_cosines(a_TV, b_TV) == pytest.approx([1, -1, 0, 0.8], abs=1e-6)
