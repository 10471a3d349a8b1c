"""The front against a naive twin, what the search keeps, and what more budget does."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilemoe.plan import Constraints, Plan, plan, published_law
from mobilemoe.plan.device import load_profile
from mobilemoe.plan.search import Candidate, thinned
from mobilemoe.plan.search.candidates import Speeds, candidates
from mobilemoe.plan.search.front import costs, pareto_front
from mobilemoe.plan.search.search import search

LAW = published_law()
PHONE = load_profile("galaxy-s25")
LARGE = Constraints(3_000_000_000, device=PHONE, decode_tok_s=50, train_flops=1e22)
SMALL = Constraints(40_000_000, context=1024, vocab_size=4096)


def dominated(candidate: Candidate, others: tuple[Candidate, ...]) -> bool:
    """Whether another is as good in every cost and better in one."""
    mine = costs(LAW, candidate)
    for other in others:
        theirs = costs(LAW, other)
        if theirs != mine and all(a <= b for a, b in zip(theirs, mine, strict=True)):
            return True
    return False


@pytest.mark.parametrize("constraints", [LARGE, SMALL], ids=["large", "small"])
def test_the_front_is_that_of_the_definition(constraints: Constraints) -> None:
    compared = search(LAW, constraints, Speeds()).compared
    front = pareto_front(LAW, compared)
    naive = [candidate for candidate in compared if not dominated(candidate, compared)]
    assert {c.shape for c in front} == {c.shape for c in naive}
    assert 1 < len(front) <= len(compared)
    assert (len(front) < len(compared)) == (constraints is LARGE)  # without a loss all trade
    losses = [costs(LAW, candidate)[0] for candidate in front]
    assert losses == sorted(losses)


def test_all_of_the_front_meets_the_constraints() -> None:
    result = plan(LARGE, with_sensitivity=False)
    for candidate in (*result.front, result.chosen):
        assert candidate.memory_bytes <= LARGE.memory_bytes
        assert candidate.decode_tok_s is not None
        assert candidate.decode_tok_s >= 50
        assert candidate.training_flops == pytest.approx(1e22)
        assert candidate.weight_bytes == candidate.config.weight_bytes("int4")
        assert candidate.kv_bytes == 8192 * candidate.config.kv_bytes_per_token("int8")
        assert candidate.active_params == candidate.config.active_params


def test_ties_are_the_members_within_the_error_of_the_best() -> None:
    result = plan(LARGE, with_sensitivity=False)
    best = result.front[0].loss
    assert best is not None
    expected = [c for c in result.front if c.loss and c.loss.loss < best.loss + LAW.rmse]
    assert list(result.ties) == expected
    assert len(expected) > 1
    assert result.chosen.loss is not None
    assert result.chosen.loss.loss < best.loss + LAW.rmse
    assert plan(SMALL, with_sensitivity=False).ties == ()


def test_a_choice_beside_the_front_is_admitted() -> None:
    result = plan(LARGE, with_sensitivity=False)
    assert result.chosen.shape not in {c.shape for c in result.front}
    assert any("beside the front" in sentence for sentence in result.confidence)
    inside = plan(replace(LARGE, prefer="memory"), with_sensitivity=False)
    assert inside.chosen.shape in {c.shape for c in inside.front}
    assert not any("beside the front" in sentence for sentence in inside.confidence)


def test_a_thinned_front_keeps_its_order_and_its_ends() -> None:
    front = plan(LARGE, with_sensitivity=False).front
    few = thinned(front, 6)
    assert len(few) == 6
    assert [c for c in front if c in few] == list(few)
    by_memory = sorted(front, key=lambda c: c.memory_bytes)
    assert by_memory[0] in few
    assert by_memory[-1] in few
    assert thinned(front[:3], 6) == front[:3]


def test_the_search_looks_at_every_sound_shape_once() -> None:
    found, _ = candidates(LAW, SMALL)
    assert len({candidate.shape for candidate in found}) == len(found)
    assert {candidate.expert_equivalents for candidate in found} == {1, 2, 4, 8, 16, 32}


def best_loss(result: Plan) -> float:
    return min(c.loss.loss for c in result.front if c.loss is not None)


@settings(max_examples=6, deadline=None)
@given(
    st.integers(700_000_000, 6_000_000_000),
    st.floats(1, 4),
    st.integers(600_000_000, 2_000_000_000),
    st.sampled_from([2e11, 5e11]),
)
def test_more_memory_or_compute_never_raises_the_best_loss(
    memory: int, factor: float, flops: int, tokens: float
) -> None:
    small = Constraints(memory, flops_per_token=flops, tokens=tokens)
    base = best_loss(plan(small, with_sensitivity=False))
    more_memory = replace(small, memory_bytes=int(memory * factor))
    more_compute = replace(small, flops_per_token=int(flops * factor))
    for larger in (more_memory, more_compute):
        assert best_loss(plan(larger, with_sensitivity=False)) <= base + 1e-12
