"""Sampling: greedy, temperature, top-k, top-p, against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilemoe.engine.sampling import Sampling, candidates, choose, log_probability
from mobilemoe.errors import MobileMoEError

logits = st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=40)


def softmax(x):
    weights = np.exp(x - x.max())
    return weights / weights.sum()


@settings(max_examples=100, deadline=None)
@given(values=logits, temperature=st.floats(0.05, 5), k=st.integers(0, 50), p=st.floats(0.01, 1))
def test_candidates_follow_the_definition(values, temperature, k, p):
    x_V = np.array(values, np.float32)
    ids_C, probabilities_C = candidates(x_V, Sampling(temperature, p, k))
    order = np.argsort(-x_V, kind="stable")
    order = order[:k] if k else order
    assert np.array_equal(ids_C, order[: len(ids_C)])
    kept = softmax(x_V.astype(np.float64)[order] / temperature)
    reached = kept[: len(ids_C)].sum()
    assert reached >= p - 1e-9 or len(ids_C) == len(order)
    assert kept[: len(ids_C) - 1].sum() < p + 1e-9
    assert np.allclose(probabilities_C, kept[: len(ids_C)] / reached)


def test_greedy_takes_the_first_of_equals():
    rng = np.random.default_rng(0)
    assert choose(np.array([1, 3, 3, 0], np.float32), Sampling(), rng) == 1


def test_tiny_temperature_is_greedy_and_never_overflows():
    rng = np.random.default_rng(0)
    x_V = np.array([1.0, 30.0, 29.9], np.float32)
    assert {choose(x_V, Sampling(5e-324), rng) for _ in range(20)} == {1}


def test_draws_have_the_right_frequencies():
    rng = np.random.default_rng(0)
    x_V = np.log(np.array([0.5, 0.3, 0.2])).astype(np.float32)
    draws = [choose(x_V, Sampling(1.0), rng) for _ in range(4000)]
    assert np.allclose(np.bincount(draws) / 4000, [0.5, 0.3, 0.2], atol=0.03)


def test_log_probability_is_the_models_own():
    x_V = np.array([0.0, 1.0, 2.0], np.float32)
    assert log_probability(x_V, 1) == pytest.approx(np.log(softmax(x_V.astype(np.float64))[1]))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_non_finite_logits_are_an_error(bad, temperature):
    x_V = np.array([0.0, bad, 1.0], np.float32)
    with pytest.raises(MobileMoEError, match="logit"):
        choose(x_V, Sampling(temperature), np.random.default_rng(0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": float("inf")}, "temperature is inf"),
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"temperature": "1"}, "temperature is '1'"),
        ({"top_p": 0.0}, "top_p is 0.0; allowed: above 0, up to 1"),
        ({"top_p": 1.1}, "top_p is 1.1"),
        ({"top_p": float("nan")}, "top_p is nan"),
        ({"top_k": -1}, "top_k is -1"),
        ({"top_k": 1.0}, "top_k is 1.0"),
    ],
)
def test_bad_parameters_are_refused_with_a_hint(arguments, message):
    with pytest.raises(MobileMoEError, match=message) as caught:
        Sampling(**arguments)
    assert caught.value.hint
