"""Fake devices hold, to the byte, what the arithmetic of the plan says."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import torch.distributed as dist

from mobilemoe.config import ModelConfig
from mobilemoe.errors import MobileMoEError
from mobilemoe.plan.cluster import Layout, counted_states, trained_by_part
from mobilemoe.train.fake_cluster import fake_ranks, faked_states


def shallow(size: str) -> ModelConfig:
    """A preset with two of its layers, all of which are alike."""
    return replace(ModelConfig.preset(size), num_hidden_layers=2)


@pytest.mark.parametrize(
    ("size", "layout", "rank"),
    [
        ("S", Layout(256, 4), 0),
        ("S", Layout(256, 4), 255),  # holds nothing of the router
        (
            "S",
            Layout(256, 1),
            9,
        ),  # a gate and up projection cut along its second axis, a down one not
        ("S", Layout(8, 4), 7),  # experts cut along their second axis
        ("nano", Layout(24, 2), 23),
        ("nano", Layout(1), 0),
        ("olmoe-1b-7b", Layout(64, 8), 3),  # untied head
        ("mobilellm-pro", Layout(16), 15),  # dense
    ],
)
def test_fake_devices_hold_what_the_arithmetic_says(size: str, layout: Layout, rank: int) -> None:
    config = shallow(size)
    states = faked_states(config, layout, rank)
    sizes = trained_by_part(config, layout, rank)
    assert states.parameters == {part: 4 * size for part, size in sizes.items()}
    assert states.gradients == states.parameters
    assert states.moments == {part: 8 * size for part, size in sizes.items()}
    assert "fake devices" in states.source


@pytest.mark.parametrize("layout", [Layout(256, 4), Layout(48, 2)])
def test_the_first_rank_is_the_fullest_and_the_one_that_is_planned(layout: Layout) -> None:
    config = shallow("S")
    faked, counted = faked_states(config, layout), counted_states(config, layout)
    assert faked.parameters == counted.parameters
    assert faked.moments == counted.moments


def test_nothing_is_left_of_the_fake_run() -> None:
    hook = sys.excepthook
    with fake_ranks(3, 16):
        assert (dist.get_rank(), dist.get_world_size()) == (3, 16)
        with pytest.raises(MobileMoEError, match="part of a distributed run"), fake_ranks(0, 2):
            pass
    assert not dist.is_initialized()
    assert sys.excepthook is hook
