"""Expert shares and how specialised they are.

L MoE layers, E experts, K top-k.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from test_evaluate_heldout import CONFIG, some_batches

from mobilemoe.evaluate.experts import (
    effective_experts,
    expert_share,
    reading,
    specialisation,
)
from mobilemoe.model import MobileMoE

POSITIVE = hnp.arrays(np.float64, (3, 2, 5), elements=st.floats(0, 1))


def domains(raw_DLE: np.ndarray) -> dict[str, np.ndarray]:
    """Return one share [L, E] per domain; an all-zero row becomes uniform."""
    raw_DLE = raw_DLE + np.where(raw_DLE.sum(-1, keepdims=True) > 0, 0, 1)
    shares_DLE = raw_DLE / raw_DLE.sum(-1, keepdims=True)
    return {f"d{i}": share_LE for i, share_LE in enumerate(shares_DLE)}


@torch.no_grad()
def test_share_counts_every_choice_of_every_batch():
    config = replace(CONFIG, num_hidden_layers=3, interleave_moe_layer_step=2)
    model = MobileMoE(config).init_weights(torch.Generator().manual_seed(0))
    batches = some_batches(3)
    share_LE = expert_share(model, batches)
    assert share_LE.shape == (1, 4)  # only the second layer routes
    counts: Counter[int] = Counter()
    for batch in batches:
        trace = []
        model(torch.from_numpy(batch.ids_BT), trace=trace)
        counts.update(trace[0].topk_ids_TK.flatten().tolist())
    total = 3 * 3 * 10 * config.num_experts_per_tok
    assert share_LE[0].tolist() == [counts[e] / total for e in range(4)]


def test_equal_use_is_no_specialisation():
    share_LE = np.array([[0.5, 0.3, 0.2, 0.0], [0.25, 0.25, 0.25, 0.25]])
    assert specialisation({"a": share_LE, "b": share_LE, "c": share_LE}) == pytest.approx([0, 0])


def test_disjoint_use_is_full_specialisation():
    a_LE = np.array([[0.5, 0.5, 0, 0, 0, 0]])
    b_LE = np.array([[0, 0, 0.9, 0.1, 0, 0]])
    c_LE = np.array([[0, 0, 0, 0, 0, 1.0]])
    assert specialisation({"a": a_LE, "b": b_LE}) == pytest.approx([1])
    assert specialisation({"a": a_LE, "b": b_LE, "c": c_LE}) == pytest.approx([1])


def test_specialisation_equals_mutual_information_by_hand():
    shares = {"a": np.array([[1.0, 0.0]]), "b": np.array([[0.5, 0.5]])}
    # p(a, 0) = 1/2, p(b, 0) = p(b, 1) = 1/4; I = sum p log p / (p_d p_e), in bits
    by_hand = 0.5 * math.log2(0.5 / (0.5 * 0.75)) + 0.25 * math.log2(0.25 / (0.5 * 0.75))
    by_hand += 0.25 * math.log2(0.25 / (0.5 * 0.25))
    assert specialisation(shares) == pytest.approx([by_hand])


@settings(max_examples=150, deadline=None)
@given(POSITIVE)
def test_specialisation_is_between_0_and_1_and_blind_to_names_and_order(raw_DLE):
    shares = domains(raw_DLE)
    information_L = specialisation(shares)
    assert information_L.shape == (2,)
    assert (information_L > -1e-12).all()
    assert (information_L < 1 + 1e-12).all()
    swapped = {name: share_LE[:, ::-1] for name, share_LE in reversed(shares.items())}
    assert specialisation(swapped) == pytest.approx(information_L, abs=1e-12)


@pytest.mark.parametrize("E", [1, 4, 60])
def test_uniform_use_is_e_effective_experts(E):
    assert effective_experts(np.full((3, E), 1 / E)) == pytest.approx(E)


def test_effective_experts_of_one_used_expert_is_one_and_layers_are_averaged():
    only_one, uniform = [1.0, 0, 0, 0], [0.25] * 4
    assert effective_experts(np.array([only_one])) == pytest.approx(1)
    assert effective_experts(np.array([only_one, uniform])) == pytest.approx(2.5)


@settings(max_examples=100, deadline=None)
@given(POSITIVE)
def test_effective_experts_lie_between_one_and_e(raw_DLE):
    for share_LE in domains(raw_DLE).values():
        assert 1 - 1e-9 < effective_experts(share_LE) < 5 + 1e-9


def test_the_reading_names_layer_domains_and_numbers():
    same, split_a, split_b = [0.25] * 4, [0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]
    shares = {"code": np.array([same, split_a]), "math": np.array([same, split_b])}
    sentence = reading(shares)
    assert "tells 50% of" in sentence
    assert "most in layer 1: 100%" in sentence
    assert "of 4 experts" in sentence
    assert "code 3, math 3" in sentence
