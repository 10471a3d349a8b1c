"""Shards of a cluster plan: every element has one owner, padding follows FSDP2's rule."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilemoe.config import ModelConfig
from mobilemoe.plan.cluster import Layout, padded_by_part, trained_by_part
from mobilemoe.plan.cluster.shards import Shard, expert_axis, shards, units


def trainable(config: ModelConfig) -> int:
    """Parameters without the router's bias, which the optimiser does not see."""
    biases = sum(w.size for w in config.weights() if w.kind == "expert_bias")
    return config.total_params - biases


@pytest.mark.parametrize(
    ("size", "gpus", "expert_parallel"),
    [("S", 256, 4), ("M", 96, 2), ("L", 64, 4), ("nano", 24, 1), ("mobilellm-pro", 40, 1)],
)
def test_the_shards_of_all_ranks_are_the_model(size: str, gpus: int, expert_parallel: int) -> None:
    config, layout = ModelConfig.preset(size), Layout(gpus, expert_parallel)
    held = sum(sum(trained_by_part(config, layout, rank).values()) for rank in range(gpus))
    assert held == trainable(config)


def test_no_rank_holds_more_than_the_padded_shard_and_the_first_holds_it_all() -> None:
    config, layout = ModelConfig.preset("S"), Layout(256, 4)
    padded = padded_by_part(config, layout)
    assert trained_by_part(config, layout, 0) == padded
    last = trained_by_part(config, layout, 255)
    assert all(last[part] <= size for part, size in padded.items())
    assert last["router"] == 0  # 60 rows for 256 ranks
    assert padded["router"] == 20 * 768


@given(length=st.integers(1, 400), ranks=st.integers(1, 300))
def test_chunks_cover_an_axis_exactly_once(length: int, ranks: int) -> None:
    shard = Shard("w", "attention", "layer 0", (length, 3), 0, ranks)
    sizes = [shard.size_on(rank) for rank in range(ranks)]
    assert sum(sizes) == 3 * length
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == min(shard.padded_size, 3 * length)


def test_experts_are_cut_where_no_rank_is_left_empty() -> None:
    assert expert_axis((16, 768, 768), 8) == 0
    assert expert_axis((15, 768, 768), 8) == 1
    assert expert_axis((15, 768, 768), 64) == 1
    assert expert_axis((60, 384, 768), 256) == 2
    assert expert_axis((60, 384, 700), 256) == 0  # nothing is even


@pytest.mark.parametrize("expert_parallel", [1, 2, 4])
def test_units_hold_every_weight_once(expert_parallel: int) -> None:
    config, layout = ModelConfig.preset("M"), Layout(64, expert_parallel)
    whole = sum(
        unit.full_size * (expert_parallel if unit.is_experts else 1)
        for unit in units(config, layout)
    )
    assert whole == trainable(config)
    per_layer = 2 if expert_parallel == 1 else 3
    assert len(units(config, layout)) == 1 + per_layer * config.num_hidden_layers
    padded = sum(shard.padded_size for shard in shards(config, layout))
    assert padded == sum(unit.padded_size // unit.ranks for unit in units(config, layout))
