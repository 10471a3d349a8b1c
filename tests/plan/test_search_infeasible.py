"""Impossible constraints: what binds, and the nearest that would do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mobilemoe.plan import Constraints, plan
from mobilemoe.plan.device import load_profile
from mobilemoe.plan.search import InfeasibleError

PHONE = load_profile("galaxy-s25")
TINY = Constraints(1000, context=1024, vocab_size=4096)
CASES = {
    "memory": TINY,
    "compute": Constraints(4_750_000, context=1024, vocab_size=4096, flops_per_token=1000),
    "training": Constraints(4_750_000, vocab_size=512, context=64, tokens=1e9, train_flops=1e10),
    "speed": Constraints(
        4_750_000, vocab_size=4096, context=512, device=PHONE, decode_tok_s=90_000
    ),
    "prompt": Constraints(
        4_750_000, vocab_size=4096, context=512, device=PHONE, ttft_s=1e-5, prompt_tokens=500
    ),
}
FIELDS = {
    "memory": "memory_bytes",
    "compute": "flops_per_token",
    "training": "train_flops",
    "speed": "decode_tok_s",
    "prompt": "ttft_s",
}


def fails(constraints: Constraints) -> InfeasibleError:
    with pytest.raises(InfeasibleError) as caught:
        plan(constraints)
    return caught.value


@pytest.mark.parametrize("case", CASES)
def test_the_binding_constraint_is_named_with_the_nearest_that_would_do(case: str) -> None:
    constraints, field = CASES[case], FIELDS[case]
    error = fails(constraints)
    nearest = error.nearest[0]
    assert nearest.constraint == field
    assert f"{field} " in error.message
    assert "is the binding constraint" in error.message
    assert field in error.hint
    enough = replace(constraints, **{field: nearest.needed})  # type: ignore[arg-type]
    assert plan(enough, with_sensitivity=False).chosen.shape == nearest.candidate.shape
    step = 1 if isinstance(nearest.needed, int) else 0.001 * nearest.needed
    short = nearest.needed + step if case == "speed" else nearest.needed - step
    fails(replace(constraints, **{field: short}))  # type: ignore[arg-type]


def test_a_shorter_context_is_offered_where_it_would_do() -> None:
    """A dense model of 0.3 MB fits; its cache of a million tokens does not."""
    constraints = Constraints(2_000_000, context=1_000_000, vocab_size=512)
    error = fails(constraints)
    assert [nearest.constraint for nearest in error.nearest] == ["memory_bytes", "context"]
    context = int(error.nearest[1].needed)
    assert plan(replace(constraints, context=context), with_sensitivity=False)
    fails(replace(constraints, context=context + 1))


def test_constraints_that_bind_together_are_named_together() -> None:
    error = fails(replace(TINY, flops_per_token=1000))
    assert error.nearest == ()
    assert [nearest.constraint for nearest in error.together] == ["memory_bytes", "flops_per_token"]
    assert "bind together" in error.message
    both = {nearest.constraint: int(nearest.needed) for nearest in error.together}
    assert plan(replace(TINY, **both), with_sensitivity=False)  # type: ignore[arg-type]


def test_a_speed_that_only_models_below_the_law_reach_is_met_by_one() -> None:
    """Nothing of .3 billion active parameters decodes so fast; smaller models do."""
    constraints = Constraints(
        300_000_000, device=PHONE, decode_tok_s=300, flops_per_token=700_000_000
    )
    result = plan(constraints, with_sensitivity=False)
    assert result.chosen.loss is None
    assert result.chosen.decode_tok_s is not None
    assert result.chosen.decode_tok_s >= 300
