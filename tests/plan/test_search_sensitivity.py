"""What would change the choice: constraints moved, and the law moved within its error."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt
from statistics import fmean

import pytest

from mobilemoe.plan import Constraints, plan, published_law
from mobilemoe.plan.device import load_profile
from mobilemoe.plan.search.sensitivity import COEFFICIENTS, _law_changes, _sweep

LAW = published_law()
LARGE = Constraints(
    3_000_000_000, device=load_profile("galaxy-s25"), decode_tok_s=50, train_flops=1e22
)


def test_each_row_is_the_plan_of_the_changed_constraints() -> None:
    result = plan(LARGE)
    rows = {row.change: row for row in result.sensitivity}
    for change, field, factor in (
        ("half the memory", "memory_bytes", 0.5),
        ("twice the memory", "memory_bytes", 2),
        ("twice the decode speed", "decode_tok_s", 2),
        ("half the training FLOPs", "train_flops", 0.5),
    ):
        value = getattr(LARGE, field)
        moved = replace(LARGE, **{field: type(value)(value * factor)})
        again = plan(moved, with_sensitivity=False).chosen
        assert rows[change].chosen == again
        assert rows[change].changes == (again.shape != result.chosen.shape)
        assert again.loss is not None
        assert rows[change].loss == again.loss.loss
    assert {f"{word} context" for word in ("half the", "twice the")} <= set(rows)


def test_within_the_error_of_its_coefficients_the_law_prefers_four_as_well() -> None:
    result = plan(Constraints(5_000_000_000, flops_per_token=1_100_000_000))
    moved = [row for row in result.sensitivity if row.change.split()[0] in COEFFICIENTS]
    assert len(moved) == 2 * len(COEFFICIENTS)
    experts = {row.chosen.expert_equivalents for row in moved if row.chosen is not None}
    assert {4, 8} <= experts
    floor = [row for row in moved if row.change.startswith("c ")]
    assert not any(row.changes for row in floor), "the floor is the same for every model"


@pytest.mark.parametrize("name", COEFFICIENTS)
def test_a_coefficient_moves_the_sweep_by_the_error_of_the_fit(name: str) -> None:
    """To first order: the exponents bend a little."""
    moved = [law for text, law in _law_changes(LAW) if text.startswith(f"{name} ")]
    assert len(moved) == 2
    for law in moved:
        pairs = zip(_sweep(LAW), _sweep(law), strict=True)
        assert sqrt(fmean((a - b) ** 2 for a, b in pairs)) == pytest.approx(LAW.rmse, rel=0.25)
        kept = replace(law, **{name: getattr(LAW, name)})
        assert kept == LAW


def test_a_change_that_leaves_nothing_is_shown_as_such() -> None:
    loose = Constraints(501_000, context=1024, vocab_size=4096)
    least = plan(loose, with_sensitivity=False).chosen.memory_bytes
    tight = replace(loose, memory_bytes=least)
    rows = {row.change: row for row in plan(tight).sensitivity}
    assert rows["half the memory"].chosen is None
    assert rows["half the memory"].changes
