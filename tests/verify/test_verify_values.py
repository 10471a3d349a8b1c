"""What the values section sees in bytes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from verify_support import DATA, SQUARE, check, copy_of, stored_tensor, write_pair

from mobilemoe.checkpoint import open_checkpoint
from mobilemoe.quant import unpack
from mobilemoe.verify import verify
from mobilemoe.verify.values import LEVELS, nibble_counts


@pytest.fixture
def int4(tmp_path):
    return copy_of(DATA / "tiny-int4", tmp_path / "int4")


def values(folder, name):
    return check(verify(folder, quick=True), "Values", name)


@given(arrays(np.uint8, st.tuples(st.integers(1, 4), st.integers(1, 40))))
def test_nibbles_are_counted_by_value(packed):
    integers = unpack(packed)
    expected = [int((integers == level).sum()) for level in LEVELS]
    assert nibble_counts(packed).tolist() == expected


def test_counts_and_groups_cover_the_file(int4):
    config = open_checkpoint(int4).config
    quantised = sum(w.size for w in config.weights() if w.kind in ("embedding", "linear", "expert"))
    assert sum(values(int4, "integers").data["levels"].values()) == quantised
    assert values(int4, "zero groups").data == {"groups": quantised // 32, "zero_groups": 0}


def test_zero_groups_are_counted_by_value_or_by_scale(int4):
    with stored_tensor(int4, "model.layers.0.self_attn.q_proj.qweight") as packed:
        packed[2, :32] = 0
    with stored_tensor(int4, "model.layers.0.self_attn.q_proj.weight_scale") as scales:
        scales[5, 0] = scales[2, 0] = 0
    assert values(int4, "zero groups").data["zero_groups"] == 3


def test_the_range_of_scales_leaves_zeros_out(int4):
    with stored_tensor(int4, "model.layers.2.self_attn.o_proj.weight_scale") as scales:
        scales[0, :2] = (0, 123)
    data = values(int4, "scales").data
    assert data["largest"] == 123
    assert 0 < data["smallest"] < 0.1


def test_another_nibble_code_is_seen(int4):
    tensors = open_checkpoint(int4).tensors()
    for name in (n for n in tensors.homes if n.endswith("qweight")):
        with stored_tensor(int4, name) as packed:
            packed ^= 0x88
    found = values(int4, "integers")
    assert found.status == "fail"
    assert "another code" in found.detail


def test_an_empty_model_is_no_model(tmp_path):
    int4, _ = write_pair(tmp_path, SQUARE)
    tensors = open_checkpoint(int4).tensors()
    for name in (n for n in tensors.homes if n.endswith("_scale")):
        with stored_tensor(int4, name) as scales:
            scales[:] = 0
    receipt = verify(int4)
    assert json.dumps(receipt.to_dict(), allow_nan=False)
    assert [check(receipt, "Values", name).status for name in ("zero groups", "scales")] == [
        "fail",
        "fail",
    ]
