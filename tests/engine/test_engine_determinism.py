"""Equal bits for any number of threads, any split of the ids over calls, any mix of sequences."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from engine_support import BF16_FOLDER, INT4_FOLDERS, KERNELS, MODES, SHAPES, write_random

from mobilemoe.engine import load

modes = pytest.mark.parametrize(("weight_format", "activations"), MODES)
kernels = pytest.mark.parametrize("kernel", KERNELS)


@kernels
@modes
def test_logits_are_bitwise_equal_for_any_thread_count(weight_format, activations, kernel):
    folder = INT4_FOLDERS[0] if weight_format == "int4" else BF16_FOLDER
    ids = np.load(folder / "expected.npz")["ids"]
    bits = {
        load(folder, threads, 64, activations, kernel).logits(ids).tobytes()
        for threads in (1, 2, 3, 4)
    }
    assert len(bits) == 1


@kernels
@modes
@pytest.mark.parametrize("piece", [1, 2, 7, 33])
def test_logits_are_bitwise_equal_for_any_split_of_the_prompt(
    weight_format, activations, kernel, piece
):
    folder = INT4_FOLDERS[1] if weight_format == "int4" else BF16_FOLDER
    ids = np.load(folder / "expected.npz")["ids"]
    model = load(folder, threads=2, activations=activations, kernel=kernel)
    session = model.session()
    pieces = [session.append_all(ids[i : i + piece]) for i in range(0, len(ids), piece)]
    assert np.concatenate(pieces).tobytes() == model.logits(ids).tobytes()


@kernels
@modes
def test_a_prompt_longer_than_the_internal_chunk(tmp_path, weight_format, activations, kernel):
    write_random(tmp_path / "model", SHAPES["moe"], weight_format)
    model = load(tmp_path / "model", threads=2, activations=activations, kernel=kernel)
    ids = np.random.default_rng(0).integers(0, 37, 600)
    whole_TV = model.logits(ids)
    session = model.session()
    session.append(ids[:300])
    last_V = session.append(ids[300:])
    assert last_V.tobytes() == whole_TV[-1].tobytes()
    assert session.routing().shape == (3, 300, 3)


@modes
def test_the_context_size_leaves_the_bits_alone(weight_format, activations):
    folder = INT4_FOLDERS[0] if weight_format == "int4" else BF16_FOLDER
    ids = [1, 2, 3, 4, 5]
    small, large = (load(folder, 1, n, activations).logits(ids) for n in (5, 4096))
    assert small.tobytes() == large.tobytes()


def bits_of(rows: list[np.ndarray]) -> str:
    return hashlib.sha256(np.concatenate([row.reshape(-1) for row in rows]).tobytes()).hexdigest()


@kernels
@modes
def test_logits_are_bitwise_equal_for_any_chunks_and_any_mix_of_sequences(
    weight_format, activations, kernel
):
    """Many prompts at once over one model: pieces of random lengths, in random turns, rewinds."""
    folder = INT4_FOLDERS[1] if weight_format == "int4" else BF16_FOLDER
    model = load(folder, 2, 64, activations, kernel)
    rng = np.random.default_rng(11)
    prompts = [rng.integers(0, 256, rng.integers(2, 40)) for _ in range(24)]
    sessions = [model.session() for _ in prompts]
    rows: list[list[np.ndarray]] = [[] for _ in prompts]
    while unfinished := [i for i, ids in enumerate(prompts) if len(rows[i]) < len(ids)]:
        i = int(rng.choice(unfinished))
        session, ids = sessions[i], prompts[i]
        start = int(rng.integers(max(0, session.position - 3), session.position + 1))
        session.rewind(start)
        piece = ids[start : start + int(rng.integers(1, 9))]
        rows[i][start:] = list(session.append_all(piece))
    for ids, made in zip(prompts, rows, strict=True):
        assert bits_of(made) == bits_of(list(model.logits(ids)))


@modes
@pytest.mark.parametrize("chunk", [1, 3, 32, 1000])
def test_a_prefill_in_chunks_ends_with_the_bits_of_one_call(weight_format, activations, chunk):
    folder = INT4_FOLDERS[0] if weight_format == "int4" else BF16_FOLDER
    model = load(folder, 2, 64, activations)
    ids = np.random.default_rng(12).integers(0, 512, 40)
    steps = list(model.session().prefill(ids, chunk))
    expected = [min(done, 40) for done in range(chunk, 40 + chunk, chunk)]
    assert [(step.done, step.total) for step in steps] == [(done, 40) for done in expected]
    logits_TV = model.logits(ids)
    for step in steps:
        assert step.logits_V.tobytes() == logits_TV[step.done - 1].tobytes()
