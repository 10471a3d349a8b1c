"""Equal bits for any number of threads and any split of the ids over calls."""

from __future__ import annotations

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
