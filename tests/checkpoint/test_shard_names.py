"""Shard names: plain .safetensors files beside the index, whatever the index says."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shard_name_cases import HONEST_NAMES, HOSTILE_NAMES

from mobilemoe.checkpoint.shard_names import check_shard_name
from mobilemoe.checkpoint.shards import shard_names
from mobilemoe.checkpoint.text_files import JSON_LIMIT
from mobilemoe.errors import CheckpointError


def write_index(folder, content):
    path = folder / "model.safetensors.index.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def test_the_list_of_hostile_names_is_long_and_has_no_double():
    assert len(HOSTILE_NAMES) >= 60
    assert len({repr(name) for name in HOSTILE_NAMES}) == len(HOSTILE_NAMES)


@pytest.mark.parametrize("name", HONEST_NAMES)
def test_takes_the_names_that_writers_give(name, tmp_path):
    assert check_shard_name(name) == name
    assert shard_names(write_index(tmp_path, {"weight_map": {"x": name}})) == (name,)


@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=lambda name: ascii(name)[:40])
def test_refuses_every_other_name(name, tmp_path):
    with pytest.raises(CheckpointError, match="the shard index names the file") as caught:
        check_shard_name(name)
    assert caught.value.message.isprintable()
    assert caught.value.message.isascii()
    assert len(caught.value.message) < 120
    honest = {"a": "model.safetensors", "b": name}
    with pytest.raises(CheckpointError, match="the shard index names the file"):
        shard_names(write_index(tmp_path, {"weight_map": honest}))


@given(st.text(max_size=20).flatmap(lambda t: st.sampled_from([t, f"{t}.safetensors"])))
def test_whatever_is_taken_is_one_plain_file_name(name):
    try:
        check_shard_name(name)
    except CheckpointError:
        return
    assert re.fullmatch(r"\w[\w.+-]*\.safetensors", name, re.ASCII)


def test_names_are_distinct_and_sorted(tmp_path):
    weight_map = {"w1": "b.safetensors", "w2": "a.safetensors", "w3": "b.safetensors"}
    index = write_index(tmp_path, {"metadata": {"total_size": 5}, "weight_map": weight_map})
    assert shard_names(index) == ("a.safetensors", "b.safetensors")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"weight_map": ' * 20_000,
        [],
        {},
        None,
        7,
        "weight_map",
        {"weight_map": None},
        {"weight_map": []},
        {"weight_map": {}},
        {"weight_map": "model.safetensors"},
        {"weight_map": ["model.safetensors"]},
    ],
    ids=lambda content: repr(content)[:30],
)
def test_refuses_what_is_no_index(content, tmp_path):
    index = write_index(tmp_path, content)
    with pytest.raises(CheckpointError, match=re.escape(str(index))) as caught:
        shard_names(index)
    assert len(caught.value.message) < 500


def test_refuses_an_index_that_is_absent_or_without_end(tmp_path):
    with pytest.raises(CheckpointError, match=r"has no model\.safetensors\.index\.json"):
        shard_names(tmp_path / "model.safetensors.index.json")
    index = write_index(tmp_path, {"weight_map": {"x": "model.safetensors"}})
    with index.open("r+b") as file:
        file.truncate(JSON_LIMIT + 1)
    with pytest.raises(CheckpointError, match=f"is larger than {JSON_LIMIT} bytes"):
        shard_names(index)
