"""Determinism and exact resume: the bits, not the loss curve."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import IO

import numpy as np
import pytest
import torch
from train_support import TINY, batches, stage, steps_of, tiny_model

from mobilemoe.data import Batch
from mobilemoe.errors import CheckpointError, MobileMoEError
from mobilemoe.model import MobileMoE
from mobilemoe.recipe import Stage
from mobilemoe.train import Trainer, load_weights, state_sha256
from mobilemoe.train.state import STATE_FILE

STAGES = {
    "drop-and-pad": stage(capacity=1.0),
    "dropless": stage(),
    "qat": stage(fake_quant=True),
}


def digest(trainer: Trainer, folder: Path) -> str:
    """SHA-256 of the whole training state."""
    assert trainer.save(folder)
    return state_sha256(folder)


def finished(s: Stage, folder: Path, seed: int = 0) -> str:
    """Digest of an uninterrupted run."""
    trainer = Trainer(tiny_model(seed), s, batches)
    assert [metrics.step for metrics in steps_of(trainer)] == list(range(1, s.steps + 1))
    return digest(trainer, folder)


@pytest.mark.parametrize("s", STAGES.values(), ids=STAGES.keys())
@pytest.mark.parametrize("stop_after", [0, 1, 4])
def test_resume_gives_the_same_bits(s: Stage, stop_after: int, tmp_path: Path) -> None:
    first = Trainer(tiny_model(), s, batches)
    for metrics in first.run() if stop_after else ():
        if metrics.step == stop_after:
            break
    first.save(tmp_path / "run")
    second = Trainer(tiny_model(seed=99), s, batches)
    assert second.resume(tmp_path / "run")
    assert second.step == stop_after
    list(second.run())
    assert digest(second, tmp_path / "a") == finished(s, tmp_path / "b")


def test_same_seed_same_bits_and_another_seed_other_bits(tmp_path: Path) -> None:
    s = stage(3)
    assert finished(s, tmp_path) == finished(s, tmp_path)
    assert finished(s, tmp_path) != finished(s, tmp_path, seed=1)


@pytest.mark.parametrize("s", STAGES.values(), ids=STAGES.keys())
def test_training_learns(s: Stage) -> None:
    trainer = Trainer(tiny_model(), replace(s, tokens=60 * s.tokens_per_step), batches)
    losses = [metrics.loss for metrics in steps_of(trainer)]
    assert losses[-1] < 0.5 * losses[0]


def test_nothing_saved_is_no_resume(tmp_path: Path) -> None:
    assert not Trainer(tiny_model(), stage(), batches).resume(tmp_path)
    with pytest.raises(CheckpointError, match="no training state"):
        load_weights(tiny_model(), tmp_path)


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_damaged_state_is_refused(keep: int, tmp_path: Path) -> None:
    Trainer(tiny_model(), stage(), batches).save(tmp_path)
    path = tmp_path / STATE_FILE
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="training state"):
        Trainer(tiny_model(), stage(), batches).resume(tmp_path)


def test_the_state_of_another_model_is_refused(tmp_path: Path) -> None:
    Trainer(tiny_model(), stage(), batches).save(tmp_path)
    other = MobileMoE(replace(TINY, num_local_experts=7)).init_weights(torch.Generator())
    with pytest.raises(CheckpointError, match="another model"):
        Trainer(other, stage(), batches).resume(tmp_path)


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_full_disk_keeps_the_last_state(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(tiny_model(), stage(), batches)
    trainer.save(tmp_path)
    before = (tmp_path / STATE_FILE).read_bytes()
    next(trainer.run())

    def always_full(*arguments: object) -> IO[bytes]:
        return Path("/dev/full").open("wb")

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        if call == "write":  # the real thing: a device that is always full
            patch.setattr("mobilemoe.atomic.os.fdopen", always_full)
        else:
            patch.setattr(os, call, full)
        with pytest.raises(MobileMoEError, match="disk is full") as error:
            trainer.save(tmp_path)
    assert error.value.hint
    assert (tmp_path / STATE_FILE).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [STATE_FILE]
    trainer.save(tmp_path)  # space again: nothing was lost
    again = Trainer(tiny_model(seed=3), stage(), batches)
    assert again.resume(tmp_path)
    assert again.step == 1


def test_the_next_stage_starts_from_the_saved_weights(tmp_path: Path) -> None:
    trainer = Trainer(tiny_model(), stage(fake_quant=True), batches)
    list(trainer.run())
    trainer.save(tmp_path)
    plain = load_weights(tiny_model(seed=5), tmp_path)
    again = Trainer(load_weights(tiny_model(seed=6), tmp_path), stage(fake_quant=True), batches)
    ids = torch.from_numpy(batches(0).ids_BT)
    with torch.no_grad():
        assert torch.equal(again.model(ids), trainer.model(ids))
        assert not torch.equal(plain(ids), trainer.model(ids))


def test_a_token_outside_the_vocabulary_is_named() -> None:
    def bad(step: int) -> Batch:
        ids = np.full((1, 4), TINY.vocab_size)
        return Batch(ids, np.zeros_like(ids), ("code",))

    with pytest.raises(MobileMoEError, match="token id 96"):
        next(Trainer(tiny_model(), stage(), bad).run())
