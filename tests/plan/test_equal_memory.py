"""Equal memory and equal training compute: where dense wins and where it loses."""

from __future__ import annotations

from itertools import pairwise

import pytest

from mobilemoe import MobileMoEError, ModelConfig
from mobilemoe.plan import published_law
from mobilemoe.plan.equal_memory import Count, best_of, equal_memory

LAW = published_law()
TRAIN_FLOPS = 3e21


@pytest.mark.parametrize("count", ["file", "half_byte"])
def test_dense_wins_at_a_quarter_gigabyte_and_loses_at_half(count: Count) -> None:
    small = equal_memory(LAW, 0.25e9, TRAIN_FLOPS, count=count)
    large = equal_memory(LAW, 0.5e9, TRAIN_FLOPS, count=count)
    assert best_of(small).num_experts == 1
    assert best_of(large).num_experts > 1


@pytest.mark.parametrize("memory", [0.1e9, 0.5e9, 3e9])
def test_budgets_are_used_up(memory: float) -> None:
    points = equal_memory(LAW, memory, TRAIN_FLOPS, count="half_byte")
    assert [point.num_experts for point in points] == [1, 2, 4, 8, 16, 32]
    for point in points:
        assert 6 * point.active_params * point.tokens == pytest.approx(TRAIN_FLOPS)
        assert point.total_params == pytest.approx(2 * memory, rel=1e-9)
    dense, *rest = points
    assert dense.active_params == pytest.approx(dense.total_params)
    assert all(one.active_params > other.active_params for one, other in pairwise([dense, *rest]))


@pytest.mark.parametrize("name", ["S", "M", "L"])
def test_the_released_sizes_lie_on_the_curve(name: str) -> None:
    """Between two widths the sizes are interpolated: within a percent of the real ones."""
    config = ModelConfig.preset(name)
    (point,) = equal_memory(LAW, config.weight_bytes("int4"), TRAIN_FLOPS, [8])
    assert point.active_params == pytest.approx(config.active_params, rel=0.01)
    assert point.total_params == pytest.approx(config.total_params, rel=0.01)


def test_each_point_says_what_is_outside_the_sweep() -> None:
    dense, *_, last = equal_memory(LAW, 0.5e9, TRAIN_FLOPS)
    assert [text.split()[0] for text in dense.loss.outside] == ["tokens"]
    assert [text.split()[0] for text in last.loss.outside] == ["active_params", "tokens"]


def test_impossible_budgets_are_refused() -> None:
    with pytest.raises(MobileMoEError, match=r"memory_bytes is 1e\+06; the family's weights take"):
        equal_memory(LAW, 1e6, TRAIN_FLOPS)
    with pytest.raises(MobileMoEError, match="train_flops is 0"):
        equal_memory(LAW, 1e9, 0)
