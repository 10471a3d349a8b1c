"""Logits and routing against the stored float64 oracle and a naive float64 twin."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from engine_support import BF16_FOLDER, INT4_FOLDERS, KERNELS, SHAPES, naive_logits, write_random

from mobilemoe.engine import load

kernels = pytest.mark.parametrize("kernel", KERNELS)
int4_folders = pytest.mark.parametrize("folder", INT4_FOLDERS, ids=lambda path: path.name)
folders = pytest.mark.parametrize(
    "folder", [*INT4_FOLDERS, BF16_FOLDER], ids=lambda path: path.name
)


def relative_errors(actual, expected):
    difference = actual - expected.astype(np.float64)
    norm = np.linalg.norm(difference) / np.linalg.norm(expected)
    return norm, np.abs(difference).max() / np.abs(expected).max()


def cosines(actual, expected):
    dots = (actual.astype(np.float64) * expected).sum(-1)
    return dots / np.linalg.norm(actual, axis=-1) / np.linalg.norm(expected, axis=-1)


@kernels
@folders
def test_exact_mode_equals_the_oracle(folder, kernel):
    expected = np.load(folder / "expected.npz")
    session = load(folder, threads=2, activations="fp32", kernel=kernel).session()
    logits_TV = session.append_all(expected["ids"])
    norm, largest = relative_errors(logits_TV, expected["logits"])
    assert norm < 1e-5 and largest < 1e-5, f"relative errors {norm}, {largest}"
    chosen_LTK = np.sort(session.routing(), axis=-1)
    assert np.array_equal(chosen_LTK, expected["topk_ids"])


@kernels
@int4_folders
def test_int8_mode_stays_close_to_the_oracle(folder, kernel):
    expected = np.load(folder / "expected.npz")
    session = load(folder, threads=2, activations="int8", kernel=kernel).session()
    logits_TV = session.append_all(expected["ids"])
    cosine_T = cosines(logits_TV, expected["logits"])
    assert np.median(cosine_T) >= 0.999, f"median cosine {np.median(cosine_T)}"
    changed_LTK = np.sort(session.routing(), axis=-1) != expected["topk_ids"]
    assert changed_LTK.any(-1).mean() <= 0.05


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("weight_format", ["int4", "bf16"])
@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_equals_the_naive_twin(tmp_path, name, weight_format, tied):
    config = replace(SHAPES[name], tie_word_embeddings=tied)
    write_random(tmp_path / name, config, weight_format)
    ids = np.random.default_rng(1).integers(0, config.vocab_size, 90).tolist()
    expected_TV = naive_logits(tmp_path / name, ids)
    for kernel in KERNELS:
        exact_TV = load(tmp_path / name, threads=2, activations="fp32", kernel=kernel).logits(ids)
        norm, largest = relative_errors(exact_TV, expected_TV)
        assert norm < 1e-4 and largest < 1e-4, f"{kernel}: relative errors {norm}, {largest}"
        if weight_format == "int4":
            int8_TV = load(tmp_path / name, threads=2, kernel=kernel).logits(ids)
            assert np.median(cosines(int8_TV, expected_TV)) >= 0.999, kernel


@pytest.mark.parametrize(
    ("folder", "activations"),
    [
        (INT4_FOLDERS[0], "fp32"),
        (INT4_FOLDERS[0], "int8"),
        (INT4_FOLDERS[1], "fp32"),
        (INT4_FOLDERS[1], "int8"),
        (BF16_FOLDER, "fp32"),
    ],
)
def test_kernels_agree(folder, activations):
    ids = np.load(folder / "expected.npz")["ids"][:12]
    models = [load(folder, activations=activations, kernel=kernel) for kernel in KERNELS]
    first, *others = [model.logits(ids) for model in models]
    for other in others:
        # Sums in another order; in int8 mode a last bit can move an activation by one step.
        norm, _ = relative_errors(other, first)
        assert norm < (1e-5 if activations == "fp32" else 0.02)
