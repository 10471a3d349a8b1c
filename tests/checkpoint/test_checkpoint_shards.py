"""Weights in several files: written, opened, and refused when they do not fit together."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from checkpoint_support import SMALLEST, join, split, write_random

from mobilemoe.checkpoint import Checkpoint, convert_checkpoint, open_checkpoint
from mobilemoe.checkpoint.layout import file_layout
from mobilemoe.checkpoint.shards import INDEX_FILE, split_layout
from mobilemoe.config import ModelConfig
from mobilemoe.errors import CheckpointError

LAYOUT = file_layout(SMALLEST, "int4")
TOTAL = sum(tensor.nbytes for tensor in LAYOUT)


@pytest.fixture(scope="module")
def single(tmp_path_factory) -> Checkpoint:
    return write_random(tmp_path_factory.mktemp("shards") / "single", tokenizer_json="{}")


@pytest.fixture
def sharded(single, tmp_path) -> Checkpoint:
    return convert_checkpoint(single, tmp_path / "sharded", "int4", TOTAL // 3).checkpoint


def change_index(checkpoint: Checkpoint, edit) -> None:
    path = checkpoint.folder / INDEX_FILE
    values = json.loads(path.read_text())
    path.write_text(json.dumps(edit(values) or values))


def check_refused(checkpoint: Checkpoint, *words: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        checkpoint.tensors()
    for word in (str(checkpoint.folder), *words):
        assert word in str(caught.value), (word, str(caught.value))


@pytest.mark.parametrize("limit", [1, 500, 1000, 5000, TOTAL - 1, TOTAL, TOTAL + 1, None])
def test_no_file_is_larger_than_asked_for_but_of_a_single_tensor(limit):
    groups = split_layout(LAYOUT, limit)
    assert tuple(tensor for group in groups.values() for tensor in group) == LAYOUT
    for group in groups.values():
        size = sum(tensor.nbytes for tensor in group)
        assert limit is None or size <= limit or len(group) == 1
    if limit is None or limit >= TOTAL:
        assert list(groups) == ["model.safetensors"]
    else:
        assert next(iter(groups)) == f"model-00001-of-{len(groups):05d}.safetensors"


def test_shards_hold_the_same_weights(single, sharded):
    assert len(sharded.shards) >= 3
    for (weight, values), (_, expected) in zip(
        sharded.read_weights(), single.read_weights(), strict=True
    ):
        assert np.array_equal(values, expected), weight.name
    tensors = sharded.tensors()
    assert tensors.tensor_bytes == single.tensors().tensor_bytes == TOTAL
    sizes = [path.stat().st_size for path in sharded.shards]
    assert tensors.file_bytes == sum(sizes) == tensors.header_bytes + tensors.tensor_bytes


def test_the_index_is_in_the_form_that_other_libraries_write(sharded):
    values = json.loads((sharded.folder / INDEX_FILE).read_text())
    assert values["metadata"] == {"total_size": TOTAL}
    assert set(values["weight_map"]) == {tensor.name for tensor in LAYOUT}
    assert set(values["weight_map"].values()) == {path.name for path in sharded.shards}


def test_shards_join_to_the_same_file(single, sharded, tmp_path):
    joined = convert_checkpoint(sharded, tmp_path / "joined", "int4").checkpoint
    assert (joined.folder / "model.safetensors").read_bytes() == single.shards[0].read_bytes()


def test_a_single_file_wins_over_an_index(single, sharded):
    shutil.copy(single.shards[0], sharded.folder)
    assert [path.name for path in sharded.shards] == ["model.safetensors"]
    sharded.tensors()


def test_the_cache_of_a_hub_links_files_and_that_is_fine(sharded, tmp_path):
    """A hub cache keeps `snapshots/x/name -> ../../blobs/hash`."""
    linked = tmp_path / "linked"
    linked.mkdir()
    for path in sharded.folder.iterdir():
        (linked / path.name).symlink_to(path)
    assert open_checkpoint(linked).tensors().tensor_bytes == TOTAL


def test_every_missing_shard_is_named(sharded):
    for path in sharded.shards:
        aside = path.with_suffix(".aside")
        path.rename(aside)
        check_refused(sharded, f"names {path.name}, which is not there", "incomplete")
        aside.rename(path)


def test_neither_weights_nor_index(sharded):
    for path in [*sharded.shards, sharded.folder / INDEX_FILE]:
        path.unlink()
    check_refused(sharded, "cannot read", "model.safetensors")


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"weight_map": {}, "weight_map": {}}']
)
def test_an_index_that_is_no_json_object(sharded, text):
    (sharded.folder / INDEX_FILE).write_bytes(text)
    check_refused(sharded, INDEX_FILE)


@pytest.mark.parametrize("weight_map", [None, {}, [], 3, "x", [["a", "b"]]])
def test_an_index_without_a_map(sharded, weight_map):
    change_index(sharded, lambda values: values.update(weight_map=weight_map))
    check_refused(sharded, "weight_map is missing or empty")


def test_an_unknown_key_of_the_index(sharded):
    change_index(sharded, lambda values: values.update(auto_map={"AutoModel": "x.py"}))
    check_refused(sharded, "unknown key 'auto_map'")


@pytest.mark.parametrize("name", [3, None, True, ["a"], {"a": 1}], ids=repr)
def test_a_shard_name_that_is_no_text(sharded, name):
    first = LAYOUT[0].name
    change_index(sharded, lambda values: values["weight_map"].update({first: name}))
    check_refused(sharded, INDEX_FILE)


@pytest.mark.parametrize(
    "name", ["../x.safetensors", "/etc/passwd", "a/b.safetensors", "..", "pytorch_model.bin"]
)
def test_a_shard_name_outside_the_folder_is_refused_unopened(sharded, name):
    first = LAYOUT[0].name
    change_index(sharded, lambda values: values["weight_map"].update({first: name}))
    check_refused(sharded, INDEX_FILE, repr(name))


def test_an_index_of_absurd_size_is_not_read(sharded):
    with (sharded.folder / INDEX_FILE).open("r+b") as file:
        file.truncate(1 << 33)  # sparse
    check_refused(sharded, "is larger than")


def test_a_tensor_in_another_file_than_the_index_says(sharded):
    first, last = LAYOUT[0].name, LAYOUT[-1].name

    def swap(values):
        places = values["weight_map"]
        places[first], places[last] = places[last], places[first]

    change_index(sharded, swap)
    check_refused(sharded, f"says {first} is in", "it is in")


def test_a_tensor_that_the_index_leaves_out_or_adds(sharded):
    change_index(sharded, lambda values: values["weight_map"].pop(LAYOUT[3].name) and None)
    check_refused(sharded, f"says {LAYOUT[3].name} is in no file")


def test_a_tensor_that_only_the_index_has(sharded):
    extra = {"extra.weight": sharded.shards[0].name}
    change_index(sharded, lambda values: values["weight_map"].update(extra))
    check_refused(sharded, "says extra.weight is in", "it is in no file")


def test_a_tensor_in_two_files(sharded):
    raw = sharded.shards[0].read_bytes()
    header, data = split(sharded.shards[1].read_bytes())
    ours, our_data = split(raw)
    name = next(iter(ours))
    begin, end = ours[name]["data_offsets"]
    size = len(data)
    header[name] = ours[name] | {"data_offsets": [size, size + end - begin]}
    sharded.shards[1].write_bytes(join(header, data + our_data[begin:end]))
    check_refused(sharded, f"tensor {name} stands in {sharded.shards[0].name} too")


def test_a_damaged_shard_is_named(sharded):
    victim = sharded.shards[-1]
    victim.write_bytes(victim.read_bytes()[:-1])
    check_refused(sharded, str(victim), "header needs")


def test_large_models_split_where_other_tools_do() -> None:
    groups = split_layout(file_layout(ModelConfig.preset("L"), "bf16"), 5_000_000_000)
    sizes = [sum(tensor.nbytes for tensor in group) for group in groups.values()]
    assert len(sizes) == 3
    assert max(sizes) <= 5_000_000_000
    assert list(groups)[-1] == "model-00003-of-00003.safetensors"


def test_writing_shards_again_leaves_no_old_ones(single, sharded):
    folder = sharded.folder
    again = convert_checkpoint(single, folder, "int4").checkpoint
    names = {path.name for path in Path(folder).iterdir()}
    assert [path.name for path in again.shards] == ["model.safetensors"]
    assert names == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
