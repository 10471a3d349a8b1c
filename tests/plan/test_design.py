"""Budget -> architecture: known designs, monotonicity and the errors of impossible budgets."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilemoe import MobileMoEError, ModelConfig
from mobilemoe.plan import Budget, Constraints, Design, design, plan

NANO = ModelConfig.preset("nano")


def smallest_named(error: MobileMoEError) -> int:
    """Return the smallest feasible value that the error message names."""
    found = re.search(r"a model meets is (\d+)", error.message)
    assert found, error.message
    return int(found.group(1))


def budget_of(config: ModelConfig) -> Budget:
    """Return the tightest budget that `config` meets at its own full context."""
    exact = Budget(
        memory_bytes=1,
        context=config.max_position_embeddings,
        flops_per_token=config.flops_per_token,
        vocab_size=config.vocab_size,
    )
    return replace(exact, memory_bytes=exact.memory_of(config))


def test_the_default_budget_gives_nano() -> None:
    result = design(Budget())
    assert result.config == NANO
    assert result.expert_equivalents == 8
    assert result.twin == NANO.dense_twin()


@pytest.mark.parametrize("name", ["nano", "S", "M", "L"])
def test_the_tightest_budget_of_a_preset_gives_its_shape(name: str) -> None:
    preset = ModelConfig.preset(name)
    assert design(budget_of(preset)).config == preset


def test_the_funnel_only_narrows_and_ends_with_one() -> None:
    funnel = design(Budget()).funnel
    left = [step.left for step in funnel]
    assert [step.step for step in funnel] == [
        "family",
        "kernels",
        "depth",
        "memory",
        "compute",
        "experts",
        "size",
    ]
    assert left == sorted(left, reverse=True)
    assert left[-1] == 1
    assert len(set(left)) == len(left), "with the default budget every rule does something"


@pytest.mark.parametrize(
    ("budget", "experts", "hidden"),
    [
        (Budget(memory_bytes=700_000), 4, 64),
        (Budget(memory_bytes=600_000), 2, 64),
        (Budget(memory_bytes=510_000), 1, 64),
        (Budget(flops_per_token=1_000_000), 8, 64),
        (Budget(memory_bytes=12_000_000, flops_per_token=8_000_000), 8, 192),
        (Budget(memory_bytes=60_000_000, flops_per_token=40_000_000), 8, 320),
    ],
)
def test_other_budgets_give_other_models(budget: Budget, experts: int, hidden: int) -> None:
    result = design(budget)
    assert (result.expert_equivalents, result.config.hidden_size) == (experts, hidden)
    assert budget.memory_of(result.config) <= budget.memory_bytes
    assert result.config.flops_per_token <= budget.flops_per_token


def test_a_dense_design_is_its_own_twin_and_says_why_it_is_dense() -> None:
    result = design(Budget(memory_bytes=510_000))
    assert not result.config.is_moe
    assert result.twin == result.config
    assert any("best E is 8" in note for note in result.notes)


def test_the_notes_admit_that_the_law_does_not_reach() -> None:
    notes = " ".join(design(Budget()).notes)
    assert "out of range" in notes
    assert "1.5 million" in notes
    assert "E = 4, 8, 16 differ by less" in notes


def test_within_the_law_a_loss_is_predicted() -> None:
    notes = " ".join(design(budget_of(ModelConfig.preset("M"))).notes)
    assert "within it: predicted loss 2.3" in notes
    assert "out of range" not in notes


def test_a_family_that_ends_says_so() -> None:
    limits = Constraints(10**12, context=1024, vocab_size=4096, extrapolate=True)
    result = plan(limits, with_sensitivity=False)
    assert result.chosen.config.hidden_size == 2048
    assert "largest shape" in result.notes[-1]


def test_a_budget_beyond_the_law_stays_within_it_and_says_so() -> None:
    result = design(Budget(memory_bytes=10**12, flops_per_token=10**12))
    assert 0.85e9 <= result.config.active_params <= 0.99e9
    assert any("so far outside the law's range" in note for note in result.notes)


def total(budget: Budget) -> int:
    try:
        return design(budget).config.total_params
    except MobileMoEError:
        return 0


@settings(max_examples=8, deadline=None)
@given(
    st.integers(300_000, 50_000_000),
    st.integers(1, 30_000_000),
    st.sampled_from([700_000, 3_200_000, 50_000_000]),
    st.sampled_from([16, 1024]),
)
def test_more_memory_never_gives_a_smaller_model(
    memory: int, more: int, flops: int, context: int
) -> None:
    small = Budget(memory_bytes=memory, flops_per_token=flops, context=context)
    large = replace(small, memory_bytes=memory + more)
    assert total(small) <= total(large)


def test_more_compute_never_gives_a_smaller_model() -> None:
    totals = [
        total(Budget(memory_bytes=30_000_000, flops_per_token=flops))
        for flops in (600_000, 1_000_000, 3_200_000, 8_000_000, 20_000_000)
    ]
    assert totals == sorted(totals)
    assert totals[0] < totals[-1]


def fails(budget: Budget) -> MobileMoEError:
    with pytest.raises(MobileMoEError) as caught:
        design(budget)
    return caught.value


def succeeds(budget: Budget) -> Design:
    result = design(budget)
    assert result.funnel[-1].left == 1
    return result


@pytest.mark.parametrize(("context", "vocab_size"), [(1024, 4096), (8192, 4096), (128, 32000)])
def test_too_little_memory_names_the_least_that_would_do(context: int, vocab_size: int) -> None:
    budget = Budget(memory_bytes=1000, context=context, vocab_size=vocab_size)
    budget = replace(budget, flops_per_token=10**9)
    error = fails(budget)
    assert "memory_bytes 1000 is the binding constraint" in error.message
    least = smallest_named(error)
    assert str(least) in error.hint
    succeeds(replace(budget, memory_bytes=least))
    fails(replace(budget, memory_bytes=least - 1))


def test_too_little_compute_names_the_least_that_would_do() -> None:
    error = fails(Budget(flops_per_token=1000))
    assert "flops_per_token 1000 is the binding constraint" in error.message
    least = smallest_named(error)
    succeeds(Budget(flops_per_token=least))
    fails(Budget(flops_per_token=least - 1))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("memory_bytes", 0),
        ("memory_bytes", 4.75e6),
        ("context", -1),
        ("flops_per_token", True),
        ("vocab_size", 255),
        ("kv_format", "int4"),
    ],
)
def test_bad_budgets_are_refused(field: str, value: object) -> None:
    with pytest.raises(MobileMoEError, match=f"{field} is .*allowed"):
        replace(Budget(), **{field: value})  # type: ignore[arg-type]


def test_a_wider_kv_cache_counts() -> None:
    fp32 = Budget(kv_format="fp32")
    elements = fp32.context * NANO.kv_bytes_per_token("fp32") // 4
    assert fp32.kv_bytes(NANO) == 4 * elements
    assert Budget(kv_format="fp16").kv_bytes(NANO) == 2 * elements
    assert elements < Budget().kv_bytes(NANO) < 2 * elements  # INT8 has scales, too
    assert design(fp32).config.hidden_size < NANO.hidden_size
