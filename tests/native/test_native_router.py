"""route and dispatch against numpy, ties, NaN, idle and overfull experts."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilemoe.engine._native import testing

logits = st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=70)


@settings(max_examples=150, deadline=None)
@given(values=logits, data=st.data())
def test_route_agrees_with_numpy(values, data):
    x_E = np.array(values, np.float32)
    k = data.draw(st.integers(1, len(values)))
    bias_E = np.random.default_rng(len(values)).uniform(-0.2, 0.2, len(values)).astype(np.float32)
    ids_K, weights_K = testing.route(x_E, bias_E, k, 2.5)
    scores_E = 1 / (1 + np.exp(-x_E.astype(np.float64)))
    biased_E = scores_E + bias_E
    assert len(set(ids_K.tolist())) == k
    # Chosen experts, best first, are no worse than the true order by more than rounding.
    best_K = np.sort(biased_E)[::-1][:k]
    assert np.allclose(biased_E[ids_K], best_K, rtol=0, atol=1e-6)
    expected_K = scores_E[ids_K] / scores_E[ids_K].sum() * 2.5
    assert np.allclose(weights_K, expected_K, rtol=1e-5)


def test_ties_go_to_the_lower_index():
    x_E = np.array([0, 1, 0, 1, 1, 0], np.float32)
    ids_K, _ = testing.route(x_E, np.zeros(6, np.float32), 5, 1.0)
    assert ids_K.tolist() == [1, 3, 4, 0, 2]


def test_the_bias_chooses_and_never_weighs():
    x_E = np.array([2.0, 1.0, 0.0], np.float32)
    ids_K, weights_K = testing.route(x_E, np.array([-5, 0, 5], np.float32), 2, 1.0)
    scores = 1 / (1 + np.exp(-x_E[[2, 1]].astype(np.float64)))
    assert ids_K.tolist() == [2, 1]
    assert np.allclose(weights_K, scores / scores.sum(), rtol=1e-6)


def test_nan_ranks_last_and_ids_stay_in_range():
    nan = np.nan
    for x_E, k, expected in (
        ([nan, 1, nan, 3], 2, [3, 1]),
        ([nan, 1, nan, 3], 3, [3, 1, 0]),
        ([nan] * 4, 4, [0, 1, 2, 3]),
        ([np.inf, nan, -np.inf, 0], 4, [0, 3, 2, 1]),
    ):
        ids_K, _ = testing.route(np.array(x_E, np.float32), np.zeros(4, np.float32), k, 1.0)
        assert ids_K.tolist() == expected


@settings(max_examples=100, deadline=None)
@given(
    choices=st.lists(st.lists(st.integers(0, 6), min_size=2, max_size=2), min_size=1, max_size=40)
)
def test_dispatch_is_a_stable_sort_by_expert(choices):
    topk_TK = np.array(choices, np.int32)
    offsets, token, slot = testing.dispatch(topk_TK, 7)
    order = np.argsort(topk_TK.ravel(), kind="stable")
    assert np.array_equal(np.diff(offsets), np.bincount(topk_TK.ravel(), minlength=7))
    assert np.array_equal(token, order // 2)
    assert np.array_equal(slot[order], np.arange(topk_TK.size))


def test_dispatch_with_all_tokens_on_one_expert():
    offsets, token, slot = testing.dispatch(np.full((5, 1), 3, np.int32), 6)
    assert offsets.tolist() == [0, 0, 0, 0, 5, 5, 5]
    assert token.tolist() == slot.tolist() == [0, 1, 2, 3, 4]
