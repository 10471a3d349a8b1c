"""The family of shapes: one width of FFN per token for every E, and the published heads."""

from __future__ import annotations

import pytest

from mobilemoe import ModelConfig
from mobilemoe.plan.family import EXPERT_EQUIVALENTS, Shape, family, family_depth, kv_heads


@pytest.mark.parametrize("experts", EXPERT_EQUIVALENTS)
def test_every_expert_count_uses_four_times_the_width_per_token(experts: int) -> None:
    config = Shape(192, 5, experts).config(vocab_size=4096, context=64)
    per_token = config.intermediate_size_mlp
    per_token += config.num_experts_per_tok * config.intermediate_size
    assert per_token == 4 * 192
    stored = config.intermediate_size_mlp + config.num_local_experts * config.intermediate_size
    assert stored == experts * 4 * 192


@pytest.mark.parametrize("name", ["S", "M", "L", "nano"])
def test_published_depths_and_kv_heads_follow_the_rules(name: str) -> None:
    config = ModelConfig.preset(name)
    assert family_depth(config.hidden_size) == config.num_hidden_layers
    assert kv_heads(config.num_attention_heads) == config.num_key_value_heads


@pytest.mark.parametrize(("heads", "expected"), [(1, 1), (2, 1), (3, 1), (4, 2), (7, 1), (9, 3)])
def test_kv_heads_divide_and_are_shared(heads: int, expected: int) -> None:
    assert kv_heads(heads) == expected


def test_family_has_no_duplicates_and_unfriendly_members_to_reject() -> None:
    shapes = family()
    assert len(set(shapes)) == len(shapes)
    friendly = [shape for shape in shapes if shape.is_kernel_friendly]
    assert all(shape.hidden_size % 64 == 0 for shape in friendly)
    assert 0 < len(friendly) < len(shapes)


def test_the_next_wider_shape_keeps_the_rules() -> None:
    wider = Shape(128, 4, 8).wider()
    assert wider == Shape(192, 5, 8)
    assert wider.is_kernel_friendly
    assert wider.has_family_depth
    assert Shape(2048, 52, 8).wider() is None
