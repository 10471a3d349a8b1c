"""Layouts that cannot run are refused, with what is allowed and a hint that works."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from mobilemoe.config import ModelConfig
from mobilemoe.errors import MobileMoEError
from mobilemoe.plan.cluster import Layout, check_layout
from paper_recipes import MIDTRAIN, PRETRAIN, paper_recipe

S = ModelConfig.preset("S")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gpus": 0}, "gpus is 0"),
        ({"gpus": 12}, "whole nodes of 8"),
        ({"gpus": 16, "expert_parallel": 3}, "a divisor of the 16 GPUs"),
        ({"gpus": 24, "expert_parallel": 12}, "the 8 GPUs of a node"),
        ({"gpus": 8, "micro_batch_rows": 0}, "run.micro_batch_rows is 0"),
    ],
)
def test_rejects_a_layout(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(MobileMoEError, match=message):
        Layout(**arguments)


def test_rejects_experts_that_do_not_divide() -> None:
    with pytest.raises(MobileMoEError, match="divisors of 60 experts"):
        check_layout(S, Layout(64, 8), PRETRAIN)
    dense = ModelConfig.preset("mobilellm-pro")
    with pytest.raises(MobileMoEError, match="dense"):
        check_layout(dense, Layout(64, 4), PRETRAIN)


def test_rejects_a_context_beyond_the_model() -> None:
    with pytest.raises(MobileMoEError, match="max_position_embeddings"):
        check_layout(ModelConfig.preset("nano"), Layout(8), PRETRAIN)


def test_the_hint_for_rows_that_do_not_divide_works() -> None:
    layout = Layout(96, 4)
    with pytest.raises(MobileMoEError, match="2048 rows per step") as caught:
        check_layout(S, layout, PRETRAIN)
    found = re.search(r"batch_tokens=(\d+)", caught.value.hint)
    assert found
    check_layout(S, layout, replace(PRETRAIN, batch_tokens=int(found.group(1))))
    fewer = re.search(r"--gpus (\d+)", caught.value.hint)
    assert fewer
    assert int(fewer.group(1)) == 64
    check_layout(S, replace(layout, gpus=64), PRETRAIN)


def test_rejects_fewer_rows_than_gpus() -> None:
    with pytest.raises(MobileMoEError, match="512 rows per step"):
        check_layout(S, Layout(1024, 4), MIDTRAIN)


def test_the_hint_for_micro_batches_that_do_not_divide_works() -> None:
    layout = Layout(256, 4, micro_batch_rows=3)
    with pytest.raises(MobileMoEError, match="a divisor of the 8 rows") as caught:
        check_layout(S, layout, PRETRAIN)
    found = re.search(r"run.micro_batch_rows=(\d+)", caught.value.hint)
    assert found
    check_layout(S, replace(layout, micro_batch_rows=int(found.group(1))), PRETRAIN)


def test_rows_of_a_step_are_shared_out() -> None:
    layout = Layout.of(paper_recipe(rows=4), 256)
    pretrain, midtrain = PRETRAIN, MIDTRAIN
    assert (layout.micro_rows(pretrain), layout.micro_batches(pretrain)) == (4, 2)
    assert (layout.micro_rows(midtrain), layout.micro_batches(midtrain)) == (2, 1)
    rows = layout.gpus * layout.micro_rows(pretrain) * layout.micro_batches(pretrain)
    assert rows == pretrain.batch_size
    assert layout.micro_tokens(pretrain) == 4 * 2048
