"""The cache formats: equal bits however a text is computed, and close to each other.

Contexts cross blocks of 64 positions and the 512 tokens that are computed at a time.
"""

from __future__ import annotations

import hashlib
from itertools import pairwise

import numpy as np
import pytest
from engine_support import KERNELS, SHAPES, attention, naive_logits, rms, write_random

from mobilemoe.checkpoint import open_checkpoint
from mobilemoe.engine import load

# Weight format, activations and cache format.
RUNS = [
    ("int4", "int8", "int8"),
    ("int4", "int8", "fp16"),
    ("int4", "int8", "fp32"),
    ("int4", "fp32", "int8"),
    ("int4", "fp32", "fp16"),
    ("int4", "fp32", "fp32"),
    ("bf16", "fp32", "int8"),
    ("bf16", "fp32", "fp16"),
    ("bf16", "fp32", "fp32"),
]
runs = pytest.mark.parametrize(("weight_format", "activations", "kv"), RUNS)
LONG = np.random.default_rng(7).integers(0, 37, 530)  # one chunk and a piece, nine blocks
SHORT = LONG[:131]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kv")
    for shape in ("moe", "dense"):
        for weight_format in ("int4", "bf16"):
            write_random(folder / shape / weight_format, SHAPES[shape], weight_format)
    return folder


def digest(logits_TV):
    return hashlib.sha256(np.ascontiguousarray(logits_TV).tobytes()).hexdigest()


def in_pieces(session, ids, rng):
    """Return the logits after each of `ids`, appended in pieces of 1 to about 300."""
    lengths = np.exp(rng.uniform(0, np.log(300), len(ids))).astype(int)
    ends = np.minimum(np.cumsum(lengths), len(ids))
    cuts = [0, *dict.fromkeys(ends.tolist())]
    return np.concatenate([session.append_all(ids[a:b]) for a, b in pairwise(cuts)])


@runs
@pytest.mark.parametrize("shape", ["moe", "dense"])
def test_bits_depend_neither_on_threads_nor_on_pieces(
    folders, shape, weight_format, activations, kv
):
    folder, rng = folders / shape / weight_format, np.random.default_rng(3)
    expected = digest(load(folder, 1, 640, activations, kv=kv).logits(LONG))
    for threads in (2, 3, 4, 7):
        model = load(folder, threads, 640, activations, kv=kv)
        assert digest(in_pieces(model.session(), LONG, rng)) == expected, threads


@pytest.mark.parametrize("kernel", KERNELS)
@runs
def test_bits_of_every_kernel_depend_neither_on_threads_nor_on_pieces(
    folders, weight_format, activations, kv, kernel
):
    folder, rng = folders / "moe" / weight_format, np.random.default_rng(4)
    expected = digest(load(folder, 1, 131, activations, kernel, kv=kv).logits(SHORT))
    model = load(folder, 2, 640, activations, kernel, kv=kv)
    assert digest(in_pieces(model.session(), SHORT, rng)) == expected


@runs
def test_bits_do_not_depend_on_other_sequences(folders, weight_format, activations, kv):
    """Three sequences in turns, each rewound now and then to an earlier position."""
    model = load(folders / "moe" / weight_format, 2, 640, activations, kv=kv)
    rng = np.random.default_rng(8)
    texts = [LONG[start : start + 150] for start in (0, 100, 200)]
    expected = [digest(model.logits(ids)) for ids in texts]
    sessions, made = [model.session() for _ in texts], [[] for _ in texts]
    while unfinished := [i for i in range(3) if len(made[i]) < 150]:
        i = int(rng.choice(unfinished))
        start = int(rng.integers(max(0, len(made[i]) - 20), len(made[i]) + 1))
        sessions[i].rewind(start)
        made[i][start:] = sessions[i].append_all(texts[i][start : start + int(rng.integers(1, 90))])
    assert [digest(np.stack(rows)) for rows in made] == expected


# Median cosine of the logits and the largest error relative to the largest logit; in exact mode,
# so that all that differs is the cache.
CLOSE = {"fp32": (1 - 1e-9, 1e-4), "fp16": (1 - 1e-6, 1e-2), "int8": (0.9995, 0.2)}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("kv", CLOSE)
def test_the_cache_alone_changes_little(folders, kv, kernel):
    folder = folders / "dense" / "int4"
    expected_TV = naive_logits(folder, SHORT)
    actual_TV = load(folder, 2, 131, "fp32", kernel, kv=kv).logits(SHORT).astype(np.float64)
    norms = np.linalg.norm(actual_TV, axis=-1) * np.linalg.norm(expected_TV, axis=-1)
    cosine, largest = CLOSE[kv]
    assert np.median((actual_TV * expected_TV).sum(-1) / norms) >= cosine
    error = np.abs(actual_TV - expected_TV).max() / np.abs(expected_TV).max()
    assert error <= largest
    if kv != "fp32":
        assert error > 1e-6  # the cache is in use


def as_int8(x_TGd):
    scale_TG1 = np.abs(x_TGd).max(-1, keepdims=True) / 127
    return np.rint(x_TGd / scale_TG1) * scale_TG1


def as_fp16(x_TGd):
    return x_TGd.astype(np.float16).astype(np.float64)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("kv", "stored"), [("int8", as_int8), ("fp16", as_fp16)])
def test_nothing_is_rounded_but_keys_and_values(folders, kv, stored, kernel):
    """Queries and softmax weights are far finer than an int8 cache, and floats beside F16."""
    folder, config = folders / "dense" / "int4", SHAPES["dense"]
    w = {weight.name: x.astype(np.float64) for weight, x in open_checkpoint(folder).read_weights()}
    x_TD = np.random.default_rng(6).standard_normal((131, 96)).astype(np.float32)
    h_TD = rms(x_TD.astype(np.float64), config) * w["model.layers.1.input_layernorm.weight"]
    name = "model.layers.1.self_attn."
    exact_TD = attention(h_TD, w, name, config)
    expected_TD = attention(h_TD, w, name, config, stored)
    model = load(folder, 2, 131, "fp32", kernel, kv=kv)
    error = np.linalg.norm(model.probe(131).attention(1, x_TD) - expected_TD)
    assert error < 0.05 * np.linalg.norm(exact_TD - expected_TD)
