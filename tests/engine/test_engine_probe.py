"""The probe's parts, summed layer by layer, are the model's logits bit for bit.

T tokens, D hidden, E experts, K top-k, V vocabulary.
"""

from __future__ import annotations

import threading

import numpy as np
import pytest
from engine_support import KERNELS, MODES, SHAPES, attention, moe_layer, rms, write_random

from mobilemoe.checkpoint import open_checkpoint
from mobilemoe.engine import load
from mobilemoe.engine._native import testing
from mobilemoe.errors import CheckpointError, MobileMoEError

IDS = np.random.default_rng(2).integers(0, 37, 40)


def embedded(folder, ids):
    weights = {weight.name: values for weight, values in open_checkpoint(folder).read_weights()}
    return weights["model.embed_tokens.weight"][ids]


def chained(model, x_TD):
    """The logits [T, V] and the choices of every layer that routes, from single parts."""
    probe = model.probe(len(x_TD))
    topk_ids = []
    for layer in range(model.config.num_hidden_layers):
        x_TD = x_TD + probe.attention(layer, x_TD)
        y_TD, _, ids_TK = probe.feed_forward(layer, x_TD)
        x_TD = x_TD + y_TD
        if model.config.is_moe_layer(layer):
            topk_ids.append(ids_TK)
    return probe.head(x_TD), topk_ids


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", ["moe", "dense", "interleaved", "no-shared-expert"])
@pytest.mark.parametrize(("weight_format", "activations"), MODES)
def test_the_chained_parts_are_the_model(tmp_path, weight_format, activations, name, kernel):
    write_random(tmp_path / "model", SHAPES[name], weight_format)
    model = load(tmp_path / "model", threads=2, activations=activations, kernel=kernel)
    logits_TV, topk_ids = chained(model, embedded(tmp_path / "model", IDS))
    session = model.session()
    assert logits_TV.tobytes() == session.append_all(IDS).tobytes()
    assert np.array_equal(session.routing().ravel(), np.ravel(topk_ids))


def test_each_part_equals_the_naive_twin(tmp_path):
    config = SHAPES["interleaved"]
    folder = tmp_path / "model"
    write_random(folder, config, "bf16")
    w = {weight.name: x.astype(np.float64) for weight, x in open_checkpoint(folder).read_weights()}
    probe = load(folder, threads=1).probe(40)
    x_TD = np.random.default_rng(0).standard_normal((40, 96)).astype(np.float32)
    layer = "model.layers.1."  # routes
    h_TD = rms(x_TD.astype(np.float64), config) * w[layer + "input_layernorm.weight"]
    expected_TD = attention(h_TD, w, layer + "self_attn.", config)
    assert np.allclose(probe.attention(1, x_TD), expected_TD, rtol=0, atol=1e-5)
    h_TD = rms(x_TD.astype(np.float64), config) * w[layer + "post_attention_layernorm.weight"]
    y_TD, logits_TE, ids_TK = probe.feed_forward(1, x_TD)
    expected_TE = h_TD @ w[layer + "feed_forward.router.weight"].T
    assert np.allclose(y_TD, moe_layer(h_TD, w, layer + "feed_forward.", config), rtol=0, atol=1e-5)
    assert np.allclose(logits_TE, expected_TE, rtol=0, atol=1e-5)
    biased_TE = 1 / (1 + np.exp(-expected_TE)) + w[layer + "feed_forward.expert_bias"]
    assert np.array_equal(ids_TK, np.argsort(-biased_TE, axis=-1, kind="stable")[:, :3])
    _, logits_TE, ids_TK = probe.feed_forward(0, x_TD)
    assert logits_TE.shape == ids_TK.shape == (40, 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("probe") / "model"
    write_random(path, SHAPES["interleaved"])
    return path


def test_every_call_begins_anew(folder):
    """A longer input before, another layer between: nothing of it is left."""
    model = load(folder, threads=2)
    x_TD = np.random.default_rng(1).standard_normal((9, 96)).astype(np.float32)
    expected_TD = model.probe(4).attention(0, x_TD[:4])
    probe = model.probe(9)
    probe.attention(0, x_TD)
    probe.attention(2, x_TD[5:])
    assert probe.attention(0, x_TD[:4]).tobytes() == expected_TD.tobytes()
    strided_TD = np.asfortranarray(x_TD)[:4]
    assert probe.attention(0, strided_TD).tobytes() == expected_TD.tobytes()


def test_nan_rows_stay_in_range_and_alone(folder):
    probe = load(folder, threads=2).probe(3)
    x_TD = np.ones((3, 96), np.float32)
    clean_TD = probe.feed_forward(1, x_TD).y_TD
    x_TD[1] = np.nan
    y_TD, logits_TE, ids_TK = probe.feed_forward(1, x_TD)
    assert np.isnan(y_TD[1]).all() and np.isnan(logits_TE[1]).all()
    assert ids_TK[1].tolist() == [0, 1, 2]
    assert y_TD[[0, 2]].tobytes() == clean_TD[[0, 2]].tobytes()


@pytest.mark.parametrize(
    "x_TD",
    [
        np.ones((0, 96), np.float32),
        np.ones((5, 96), np.float32),
        np.ones((2, 95), np.float32),
        np.ones(96, np.float32),
        np.ones((2, 96)),
        [[1.0] * 96],
    ],
    ids=["no rows", "too many rows", "width", "one axis", "float64", "list"],
)
def test_other_inputs_are_refused(folder, x_TD):
    probe = load(folder, threads=1).probe(4)
    for call in (probe.head, lambda x: probe.attention(0, x), lambda x: probe.feed_forward(0, x)):
        with pytest.raises(MobileMoEError, match=r"x_TD is .*; allowed: float32 \[1 to 4, 96\]"):
            call(x_TD)


@pytest.mark.parametrize("layer", [-1, 3, 1.0, True, 2**70])
def test_other_layers_are_refused(folder, layer):
    probe, x_TD = load(folder, threads=1).probe(4), np.ones((1, 96), np.float32)
    for call in (probe.attention, probe.feed_forward):
        with pytest.raises(MobileMoEError, match=r"layer is .*; allowed: 0 to 2"):
            call(layer, x_TD)


@pytest.mark.parametrize("tokens", [0, -1, 641, 1.5, True])
def test_other_token_counts_are_refused(folder, tokens):
    with pytest.raises(MobileMoEError, match=f"tokens is {tokens}; allowed: "):
        load(folder, threads=1).probe(tokens)


def test_the_native_class_checks_for_itself(folder):
    native_model, ones = load(folder, threads=1)._native, np.ones
    probe = testing.LayerProbe(native_model, 4, False, "fp32")
    for shape in ((0, 96), (5, 96), (2, 64)):
        message = rf"x_TD has the shape \[{shape[0]}, {shape[1]}\]; allowed: \[1 to 4, 96\]"
        x_TD = ones(shape, np.float32)
        for call in (
            probe.head,
            lambda x: probe.attention(0, x),
            lambda x: probe.feed_forward(0, x),
        ):
            with pytest.raises(ValueError, match=message):
                call(x_TD)
    for layer in (-1, 3):
        with pytest.raises(ValueError, match=f"layer is {layer}; allowed: 0 to 2"):
            probe.attention(layer, ones((1, 96), np.float32))
        with pytest.raises(ValueError, match=f"layer is {layer}; allowed: 0 to 2"):
            probe.feed_forward(layer, ones((1, 96), np.float32))


def test_int8_with_bf16_weights_is_refused(tmp_path):
    write_random(tmp_path / "model", SHAPES["dense"], "bf16")
    native_model = load(tmp_path / "model", threads=1)._native
    with pytest.raises(ValueError, match="int8 is True; allowed for BF16 weights: False"):
        testing.LayerProbe(native_model, 4, True, "int8")


def test_probes_and_sessions_take_turns(folder):
    model = load(folder, threads=2)
    x_TD = np.random.default_rng(4).standard_normal((20, 96)).astype(np.float32)
    shared = model.probe(20)
    expected_TD, expected_TV = shared.feed_forward(1, x_TD).y_TD, model.logits(IDS)
    wrong = []

    def work(probe_turn):
        for _ in range(10):
            if probe_turn:
                same = np.array_equal(shared.feed_forward(1, x_TD).y_TD, expected_TD)
            else:
                same = np.array_equal(model.logits(IDS), expected_TV)
            wrong.extend([] if same else [probe_turn])

    workers = [threading.Thread(target=work, args=(i % 2 == 0,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_a_file_truncated_in_use_is_an_error(tmp_path):
    write_random(tmp_path / "model", SHAPES["moe"])
    probe, x_TD = load(tmp_path / "model", threads=1).probe(2), np.ones((2, 96), np.float32)
    with (tmp_path / "model" / "model.safetensors").open("r+b") as file:
        file.truncate(1000)
    for call in (probe.head, lambda x: probe.attention(0, x), lambda x: probe.feed_forward(0, x)):
        with pytest.raises(CheckpointError, match="was truncated while in use"):
            call(x_TD)
