"""Sampling: penalty, temperature, top-k, top-p, min-p against twins that follow the definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilemoe.engine.candidates import candidates, largest
from mobilemoe.engine.sampling import Sampling, choose, penalized
from mobilemoe.errors import MobileMoEError


def many_logits(seed: int, size: int, levels: int, width: float, masked: float) -> np.ndarray:
    """Return logits of at most `levels` values, of which the share `masked` is -inf, not all."""
    rng = np.random.default_rng(seed)
    values = rng.normal(0, width, levels).astype(np.float32)
    x_V = values[rng.integers(0, levels, size)]
    x_V[rng.random(size) < masked] = -np.inf
    x_V[rng.integers(size)] = values[0]
    return x_V


few = st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=40)
logits = few.map(lambda values: np.array(values, np.float32)) | st.builds(
    many_logits,
    seed=st.integers(0, 2**32),
    size=st.sampled_from([4000, 1500, 130, 3]),
    levels=st.sampled_from([4000, 30, 2, 1]),
    width=st.sampled_from([1.0, 4.0, 0.1]),
    masked=st.sampled_from([0.0, 0.5, 0.999]),
)
temperatures = st.floats(0.05, 5) | st.sampled_from([5e-324, 1e-9, 1e9, 1.7e308])
parts = st.floats(0.001, 1) | st.sampled_from([0.5, 0.9, 1.0])


def naive_candidates(x_V, temperature, top_k, top_p, min_p) -> dict[int, float]:
    """Ids and weights that stay, one token at a time from a full sort."""
    order = np.argsort(-x_V, kind="stable").tolist()[: top_k or None]
    limits = np.finfo(np.float32)
    divisor = np.float32(min(max(temperature, float(limits.tiny)), float(limits.max)))
    with np.errstate(over="ignore"):
        weights_V = np.exp((x_V - x_V.max()) / divisor)
    total = math.fsum(weights_V[order])
    kept, mass = {}, 0.0
    for token_id in order:
        if top_p < 1 and kept and mass / total >= top_p:
            break
        kept[token_id] = weights_V[token_id]
        mass += float(weights_V[token_id])
    return {i: weight for i, weight in kept.items() if weight >= min_p}


@settings(max_examples=300, deadline=None)
@given(
    x_V=logits,
    temperature=temperatures,
    top_k=st.just(0) | st.integers(1, 60) | st.integers(60, 5000),
    top_p=parts,
    min_p=st.just(0.0) | parts,
)
def test_candidates_follow_the_definition(x_V, temperature, top_k, top_p, min_p):
    ids_C, weights_C = candidates(x_V, temperature, top_k, top_p, min_p)
    expected = naive_candidates(x_V, temperature, top_k, top_p, min_p)
    assert ids_C.tolist() == sorted(expected)
    assert np.allclose(weights_C, [expected[i] for i in sorted(expected)], rtol=1e-6, atol=0)
    assert int(np.argmax(x_V)) in expected


def test_a_nucleus_ends_with_the_token_that_reaches_p_exactly():
    """Binary fractions, so that the sums are exact."""
    x_V = np.log(np.array([0.25, 0.5, 0.125, 0.125], np.float32))
    assert np.array_equal(candidates(x_V, 1.0, 0, 0.99, 0.0)[1], [0.5, 1, 0.25, 0.25])
    assert candidates(x_V, 1.0, 0, 0.5, 0.0)[0].tolist() == [1]
    assert candidates(x_V, 1.0, 0, 0.75, 0.0)[0].tolist() == [0, 1]
    assert candidates(x_V, 1.0, 0, 0.76, 0.0)[0].tolist() == [0, 1, 2]


@settings(max_examples=200, deadline=None)
@given(x_V=logits, count=st.integers(1, 5000))
def test_largest_is_the_beginning_of_a_stable_sort(x_V, count):
    expected = sorted(np.argsort(-x_V, kind="stable")[:count].tolist())
    assert largest(x_V, count).tolist() == expected


@settings(max_examples=100, deadline=None)
@given(
    x_V=logits,
    penalty=st.floats(0.1, 10) | st.sampled_from([1e-300, 1e300]),
    seed=st.integers(0, 99),
)
def test_the_penalty_follows_the_definition(x_V, penalty, seed):
    seen_V = np.random.default_rng(seed).random(len(x_V)) < 0.3
    before = x_V.copy()
    limit = np.finfo(np.float32).max
    for got, x, seen in zip(penalized(x_V, penalty, seen_V), x_V, seen_V, strict=True):
        x = float(x)
        if seen:
            x = min(x / penalty, float(limit)) if x > 0 else x * penalty
        with np.errstate(over="ignore"):
            assert got == np.float32(x)
    assert np.array_equal(x_V, before), "the model's own logits stay as they are"


def test_the_penalty_comes_before_everything_else():
    x_V = np.array([2.0, 1.9, -1.0], np.float32)
    seen_V = np.array([True, False, True])
    rng = np.random.default_rng(0)
    assert choose(x_V, Sampling(repetition_penalty=1.1), rng) == 0, "nothing was seen"
    assert choose(x_V, Sampling(), rng, seen_V) == 0, "no penalty"
    assert choose(x_V, Sampling(repetition_penalty=1.1), rng, seen_V) == 1
    assert choose(x_V, Sampling(1.0, top_k=1, repetition_penalty=1.1), rng, seen_V) == 1


def test_greedy_takes_the_first_of_equals_and_no_random_number():
    rng = np.random.default_rng(0)
    assert choose(np.array([1, 3, 3, 0], np.float32), Sampling(), rng) == 1
    assert rng.random() == np.random.default_rng(0).random()


def test_tiny_temperature_is_greedy_and_never_overflows():
    rng = np.random.default_rng(0)
    x_V = np.array([1.0, 30.0, 29.9], np.float32)
    assert {choose(x_V, Sampling(5e-324), rng) for _ in range(20)} == {1}


def test_draws_have_the_right_frequencies():
    rng = np.random.default_rng(0)
    x_V = np.log(np.array([0.5, 0.3, 0.2])).astype(np.float32)
    draws = [choose(x_V, Sampling(1.0), rng) for _ in range(4000)]
    assert np.allclose(np.bincount(draws) / 4000, [0.5, 0.3, 0.2], atol=0.03)


class Fixed:
    """A generator whose next number is known."""

    def __init__(self, uniform: float) -> None:
        self.random = lambda: uniform


@settings(max_examples=100, deadline=None)
@given(x_V=logits, uniform=st.floats(0, 1, exclude_max=True) | st.just(math.nextafter(1, 0)))
def test_a_draw_inverts_the_running_sum_and_is_never_impossible(x_V, uniform):
    token_id = choose(x_V, Sampling(1.0), Fixed(uniform))
    weights_V = np.exp(x_V - x_V.max()).astype(np.float64)
    assert weights_V[token_id] > 0
    below, total = weights_V[:token_id].sum(), weights_V.sum()
    assert below <= uniform * total * (1 + 1e-12)
    assert below + weights_V[token_id] >= uniform * total * (1 - 1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize(
    "sampling", [Sampling(), Sampling(1.0), Sampling(0.5, 0.9, 2, 0.1, 1.2)], ids=str
)
def test_non_finite_logits_are_an_error(bad, sampling):
    x_V = np.array([0.0, bad, 1.0], np.float32)
    with pytest.raises(MobileMoEError, match="logit"):
        choose(x_V, sampling, np.random.default_rng(0), np.ones(3, bool))


def test_no_possible_token_is_an_error():
    with pytest.raises(MobileMoEError, match="a logit of -inf"):
        choose(np.full(3, -np.inf, np.float32), Sampling(), np.random.default_rng(0))


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
        ({"min_p": -0.1}, "min_p is -0.1; allowed: 0 to 1"),
        ({"min_p": 1.1}, "min_p is 1.1"),
        ({"min_p": float("nan")}, "min_p is nan"),
        ({"repetition_penalty": 0}, "repetition_penalty is 0; allowed: a finite number above 0"),
        ({"repetition_penalty": float("inf")}, "repetition_penalty is inf"),
        ({"repetition_penalty": float("nan")}, "repetition_penalty is nan"),
        ({"repetition_penalty": True}, "repetition_penalty is True"),
    ],
)
def test_bad_parameters_are_refused_with_a_hint(arguments, message):
    with pytest.raises(MobileMoEError, match=message) as caught:
        Sampling(**arguments)
    assert caught.value.hint
