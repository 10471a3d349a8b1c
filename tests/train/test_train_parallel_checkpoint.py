"""Distributed checkpoints: what is refused, what survives, and that nothing is unpickled."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from mobilemoe.errors import CheckpointError, MobileMoEError
from mobilemoe.train.parallel import Ranks, RankWorld, load_distributed, save_distributed
from mobilemoe.train.state import save_state

ALONE = Ranks(torch.device("cpu"))


def tensors(seed: int = 0) -> dict[str, Tensor]:
    """A small state: a matrix, a vector, a number."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "weight.a": torch.randn(5, 3, generator=generator),
        "bias.0": torch.randn(4, generator=generator),
        "step.a": torch.tensor(float(seed)),
    }


def save(folder: Path, step: int) -> Path:
    return save_distributed(folder, tensors(step), {"stage": "sft", "step": step}, ALONE)


def loaded_step(folder: Path) -> int | None:
    """The step of the checkpoint that counts, whose bits must be those that were saved."""
    found = load_distributed(folder, tensors(99), ALONE)
    if found is None:
        return None
    values, progress = found
    step = int(progress["step"])
    assert progress == {"stage": "sft", "step": step}
    assert all(torch.equal(values[name], tensor) for name, tensor in tensors(step).items())
    return step


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_newest_counts_and_two_are_kept(tmp_path: Path) -> None:
    assert loaded_step(tmp_path) is None
    for step in (1, 2, 3):
        save(tmp_path, step)
        assert loaded_step(tmp_path) == step
    assert names(tmp_path) == {"LATEST", "checkpoint-00000002", "checkpoint-00000003"}


def test_the_same_step_can_be_saved_again(tmp_path: Path) -> None:
    save(tmp_path, 2)
    save(tmp_path, 2)
    assert loaded_step(tmp_path) == 2
    assert names(tmp_path) == {"LATEST", "checkpoint-00000002"}


def test_a_run_that_went_back_forgets_its_other_future(tmp_path: Path) -> None:
    for step in (10, 20):
        save(tmp_path, step)
    save(tmp_path, 15)
    assert loaded_step(tmp_path) == 15
    assert names(tmp_path) == {"LATEST", "checkpoint-00000010", "checkpoint-00000015"}


def test_what_a_killed_writer_left_is_ignored_and_removed(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (tmp_path / ".checkpoint-00000002.tmp-abc").mkdir()
    shutil.copytree(tmp_path / "checkpoint-00000001", tmp_path / "checkpoint-00000003")
    assert loaded_step(tmp_path) == 1  # complete, but LATEST was not yet written
    save(tmp_path, 2)
    assert names(tmp_path) == {"LATEST", "checkpoint-00000001", "checkpoint-00000002"}


def test_a_single_device_state_that_is_further_is_read(tmp_path: Path) -> None:
    save_state(tmp_path, tensors(7), {"stage": "sft", "step": 7})
    assert loaded_step(tmp_path) == 7
    save(tmp_path, 9)
    assert loaded_step(tmp_path) == 9
    save_state(tmp_path, tensors(11), {"stage": "sft", "step": 11})
    assert loaded_step(tmp_path) == 11


def test_random_states_of_other_devices_are_left_out(tmp_path: Path) -> None:
    state = tensors() | {"random.cpu": torch.arange(8, dtype=torch.uint8)}
    save_distributed(tmp_path, state, {"step": 1}, ALONE)
    found = load_distributed(tmp_path, tensors() | {"random.cuda": torch.zeros(16)}, ALONE)
    assert found is not None
    assert found[0].keys() == tensors().keys()
    again = load_distributed(tmp_path, state, ALONE)
    assert again is not None
    assert torch.equal(again[0]["random.cpu"], state["random.cpu"])


def test_one_process_goes_on_where_several_stopped(tmp_path: Path) -> None:
    store = RankWorld(ALONE).store()
    assert store.load(tmp_path, tensors()) is None
    save(tmp_path, 5)
    into = tensors(99)
    assert store.load(tmp_path, into) == {"stage": "sft", "step": 5}
    assert torch.equal(into["weight.a"], tensors(5)["weight.a"])
    store.save(tmp_path, tensors(4), {"stage": "sft", "step": 4})  # it went back
    assert names(tmp_path) == {"state.safetensors"}
    assert loaded_step(tmp_path) == 4
    save(tmp_path, 3)  # and so did several
    assert names(tmp_path) == {"LATEST", "checkpoint-00000003"}
    assert loaded_step(tmp_path) == 3


@pytest.mark.parametrize("call", ["fsync", "rename", "replace"])
@pytest.mark.parametrize("nth", [1, 2])
def test_a_disk_that_refuses_keeps_the_last_checkpoint(
    call: str, nth: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1)
    real, calls = getattr(os, call), [0]

    def refuse(*arguments: object, **named: object) -> object:
        calls[0] += 1
        if calls[0] >= nth:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        try:
            save(tmp_path, 2)
        except MobileMoEError as error:
            assert error.hint
    assert calls[0] == 0 or loaded_step(tmp_path) in (1, 2)
    save(tmp_path, 3)
    assert loaded_step(tmp_path) == 3


def test_a_shard_on_a_full_disk_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1)

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(MobileMoEError, match=r"rank 0.*No space left") as error:
            save(tmp_path, 2)
    assert error.value.hint
    assert loaded_step(tmp_path) == 1
    assert names(tmp_path) == {"LATEST", "checkpoint-00000001"}


@pytest.mark.parametrize(
    "name",
    ["", "..", "../checkpoint-00000001", "/etc", "checkpoint-00000009", "checkpoint-1", "state"],
)
def test_a_pointer_to_something_else_is_refused(name: str, tmp_path: Path) -> None:
    save(tmp_path, 1)
    (tmp_path / "LATEST").write_text(name)
    with pytest.raises(CheckpointError, match="LATEST"):
        loaded_step(tmp_path)


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_a_short_shard_is_refused(keep: int, tmp_path: Path) -> None:
    shard = next(save(tmp_path, 1).glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=shard.name):
        loaded_step(tmp_path)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 2}', '{"format": 1, "files": 3}'])
def test_a_damaged_manifest_is_refused(text: str, tmp_path: Path) -> None:
    (save(tmp_path, 1) / "manifest.json").write_text(text)
    with pytest.raises(CheckpointError, match="checkpoint-00000001"):
        loaded_step(tmp_path)


@pytest.mark.parametrize("header", [b"", b"{", b"[]", b'{"weight.a": 1}'])
def test_a_broken_header_is_refused(header: bytes, tmp_path: Path) -> None:
    shard = next(save(tmp_path, 1).glob("*.safetensors"))
    content = shard.read_bytes()
    start = len(header).to_bytes(8, "little") + header
    shard.write_bytes(start + content[len(start) :])
    with pytest.raises(CheckpointError, match="checkpoint-00000001"):
        loaded_step(tmp_path)


def test_pieces_that_do_not_cover_a_tensor_are_refused(tmp_path: Path) -> None:
    folder = save(tmp_path, 1)
    shard = next(folder.glob("*.safetensors"))
    offsets = {name: {"saved_offsets": [0] * t.dim()} for name, t in tensors().items()}
    offsets["weight.a"] = {"saved_offsets": [2, 0]}
    save_file(
        tensors() | {"weight.a": torch.zeros(3, 3)},
        shard,
        {"DCP_SHARDING_INFO": json.dumps(offsets)},
    )
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][shard.name] = shard.stat().st_size
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="do not make the whole"):
        loaded_step(tmp_path)


@pytest.mark.parametrize("changed", [torch.zeros(5, 4), torch.zeros(15)])
def test_the_checkpoint_of_another_model_is_refused(changed: Tensor, tmp_path: Path) -> None:
    save(tmp_path, 1)
    with pytest.raises(CheckpointError, match=r"(?s)weight\.a is \[5, 3\].*another model"):
        load_distributed(tmp_path, tensors() | {"weight.a": changed}, ALONE)
    with pytest.raises(CheckpointError, match=r"(?s)weight\.b is None.*another model"):
        load_distributed(tmp_path, tensors() | {"weight.b": changed}, ALONE)
    fewer = {name: tensor for name, tensor in tensors().items() if name != "bias.0"}
    with pytest.raises(CheckpointError, match=r"bias\.0 is only in the file"):
        load_distributed(tmp_path, fewer, ALONE)


def test_nothing_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save(tmp_path, 1)
    assert {path.suffix for path in folder.iterdir()} == {".safetensors", ".json"}
    (folder / ".metadata").write_bytes(pickle.dumps("what the usual format would read"))

    def refuse(*arguments: object, **named: object) -> object:
        raise AssertionError("unpickled")

    monkeypatch.setattr(pickle, "load", refuse)
    monkeypatch.setattr(pickle, "loads", refuse)
    monkeypatch.setattr(pickle, "Unpickler", refuse)
    assert loaded_step(tmp_path) == 1
