"""The float64 reference against the stored oracle, and in pieces."""

from __future__ import annotations

import numpy as np
import pytest
from verify_support import DATA, SHAPES, write_random

from mobilemoe.checkpoint import open_checkpoint
from mobilemoe.verify import files
from mobilemoe.verify.files import Weights
from mobilemoe.verify.reference import Reference


def forward(folder, ids):
    """Return the logits [T, V] and the sorted choices [L, T, K] of the reference."""
    reference = Reference(Weights(open_checkpoint(folder)), len(ids))
    x_TD, choices = reference.embed(ids), []
    for layer in range(reference.config.num_hidden_layers):
        x_TD = x_TD + reference.attention(layer, x_TD)
        output = reference.feed_forward(layer, x_TD)
        x_TD = x_TD + output.feed_forward_TD
        choices.append(np.sort(output.topk_ids_TK, axis=-1))
    return reference.head(x_TD), np.stack(choices)


@pytest.mark.parametrize("name", ["tiny-int4", "tiny-bf16", "tiny-int4-hd64"])
def test_the_reference_equals_the_oracle(name):
    expected = np.load(DATA / name / "expected.npz")
    logits_TV, choices_LTK = forward(DATA / name, expected["ids"].tolist())
    error = np.abs(logits_TV - expected["logits"]).max() / np.abs(expected["logits"]).max()
    assert error < 1e-7  # the oracle is stored as float32
    assert np.array_equal(choices_LTK, expected["topk_ids"])


def test_later_tokens_do_not_reach_back(tmp_path):
    folder = write_random(tmp_path / "bf16", SHAPES["moe"])
    whole_TV, _ = forward(folder, [5, 6, 7, 8])
    start_TV, _ = forward(folder, [5, 6])
    assert np.allclose(whole_TV[:2], start_TV, rtol=1e-12, atol=1e-12)


def test_the_size_of_the_pieces_does_not_show(tmp_path, monkeypatch):
    folder = write_random(tmp_path / "bf16", SHAPES["untied"])
    whole_TV, _ = forward(folder, [1, 2, 3])
    monkeypatch.setattr(files, "CHUNK_ELEMENTS", 64 * 7)
    assert np.allclose(forward(folder, [1, 2, 3])[0], whole_TV, rtol=1e-13, atol=1e-13)


def test_pieces_hold_the_scales_that_rounding_chooses():
    int4 = Weights(open_checkpoint(DATA / "tiny-int4"))
    name = "model.layers.0.feed_forward.experts.gate_up_proj"
    piece = int4.expert(name, 3)
    integers = piece.values / np.repeat(piece.scales, 32, axis=-1)
    assert np.array_equal(integers, np.rint(integers))
    assert piece.values.shape == (128, 128)
    bf16 = Weights(open_checkpoint(DATA / "tiny-bf16"))
    first = bf16.expert(name, 3)
    assert np.allclose(first.scales[7, 1], np.abs(first.values[7, 32:64]).max() * 2 / 15)
