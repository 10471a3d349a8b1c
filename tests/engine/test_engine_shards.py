"""Weights in several files: the same bits as in one, and every shard checked on its own."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from engine_support import SMALL, write_random

from mobilemoe.checkpoint import Checkpoint, convert_checkpoint
from mobilemoe.engine import load
from mobilemoe.engine.native import native_errors, native_module
from mobilemoe.errors import CheckpointError, MobileMoEError


@pytest.fixture(scope="module")
def single(tmp_path_factory) -> Checkpoint:
    return write_random(tmp_path_factory.mktemp("shards") / "single", SMALL)


@pytest.fixture
def sharded(single, tmp_path) -> Checkpoint:
    return convert_checkpoint(single, tmp_path / "sharded", "int4", 20_000).checkpoint


def open_paths(paths: list[Path]) -> object:
    """Open `paths` as the INT4 model SMALL, past the Python reader."""
    with native_errors():
        strings = [str(path) for path in paths]
        return native_module().Model(strings, asdict(SMALL), 1, "auto", "int4")


def check_refused(paths: list[Path], *words: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        open_paths(paths)
    assert caught.value.hint
    for word in words:
        assert word in caught.value.message, (word, caught.value.message)


def test_shards_give_the_same_bits_as_one_file(single, sharded):
    assert len(sharded.shards) >= 3
    expected = load(single.folder, threads=1).logits([1, 2, 3])
    assert np.array_equal(load(sharded.folder, threads=2).logits([1, 2, 3]), expected)
    open_paths(list(reversed(sharded.shards)))


def test_a_tensor_in_two_files_is_refused_naming_both(single, sharded):
    first = str(sharded.shards[0])
    name = "tensor model.embed_tokens.qweight"
    check_refused([*sharded.shards, single.shards[0]], f"{name} is also in {first}")
    check_refused([*sharded.shards, single.shards[0]], f"{single.shards[0]}: {name}")
    check_refused([sharded.shards[0]] * 2, f"{first}: {name} is also in {first}")


def test_a_missing_shard_is_refused(sharded):
    for left_out in sharded.shards:
        paths = [path for path in sharded.shards if path != left_out]
        others = f"{paths[0]} and {len(paths) - 1} more: tensor "
        check_refused(paths, others, "is missing")


def test_every_shard_must_be_whole(sharded):
    for shard in sharded.shards:
        intact = shard.read_bytes()
        for bad in (intact[:-1], intact + b"x", intact[:100], b""):
            shard.write_bytes(bad)
            check_refused(sharded.shards, f"{shard}: ")
        shard.write_bytes(intact)
    open_paths(sharded.shards)


def test_no_shards_are_refused():
    with pytest.raises(MobileMoEError, match="paths is empty; allowed: at least one"):
        open_paths([])


def test_a_truncated_shard_is_noticed_whichever_it_is(single, sharded):
    expected = load(single.folder, threads=1).logits([1])
    for shard in sharded.shards:
        intact = shard.read_bytes()
        model = load(sharded.folder, threads=1)
        assert np.array_equal(model.logits([1]), expected)
        os.truncate(shard, 1)
        with pytest.raises(CheckpointError, match=f"{shard}: was truncated while in use"):
            model.logits([1])
        shard.write_bytes(intact)


def test_an_index_that_contradicts_the_files_is_refused(sharded):
    """The engine would find the tensor in any shard; the index is still wrong."""
    path = sharded.folder / "model.safetensors.index.json"
    names = [shard.name for shard in sharded.shards]
    text = path.read_text().replace(f'model.norm.weight": "{names[-1]}', "@")
    assert "@" in text
    path.write_text(text.replace("@", f'model.norm.weight": "{names[0]}'))
    with pytest.raises(CheckpointError, match=r"says model\.norm\.weight is in"):
        load(sharded.folder, threads=1)
