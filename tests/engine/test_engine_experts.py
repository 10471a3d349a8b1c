"""The feed-forward of routed experts for any number of tokens on one expert.

Up to 4 tokens are spread over the threads by outputs, more by units of up to 60 slots of one
expert (native/moe.cc). T tokens, E experts, K top-k.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from engine_support import KERNELS, MODES, SMALL, moe_layer, rms, write_random

from mobilemoe.checkpoint import open_checkpoint
from mobilemoe.engine import load

CONFIG = replace(SMALL, num_hidden_layers=1)
LAYER = "model.layers.0."
CHOSEN = [1, 4, 6]
# Beyond what any score can make up for.
ONLY_CHOSEN = [10.0 if expert in CHOSEN else 0.0 for expert in range(7)]
COUNTS = [*range(1, 10), 59, 60, 61, 119, 120, 121, 181]

kernels = pytest.mark.parametrize("kernel", KERNELS)
modes = pytest.mark.parametrize(("weight_format", "activations"), MODES)


def rows(tokens):
    return np.random.default_rng(5).standard_normal((tokens, 96)).astype(np.float32)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A checkpoint whose tokens all choose the same experts, in both formats."""
    folder = tmp_path_factory.mktemp("experts")
    for weight_format in ("int4", "bf16"):
        write_random(folder / weight_format, CONFIG, weight_format, expert_bias=ONLY_CHOSEN)
    return folder


@kernels
@modes
def test_experts_take_any_number_of_tokens(folders, weight_format, activations, kernel):
    """Every row has the bits that it has alone, however many share its experts."""
    x_TD = rows(max(COUNTS))
    one = load(folders / weight_format, 1, activations=activations, kernel=kernel).probe(1)
    alone_TD = np.concatenate([one.feed_forward(0, x_D).y_TD for x_D in x_TD[:, None]])
    for threads in (1, 3):
        model = load(folders / weight_format, threads, activations=activations, kernel=kernel)
        probe = model.probe(max(COUNTS))
        for tokens in COUNTS:
            y_TD, _, ids_TK = probe.feed_forward(0, x_TD[:tokens])
            assert (np.sort(ids_TK, axis=-1) == CHOSEN).all()
            assert y_TD.tobytes() == alone_TD[:tokens].tobytes(), (threads, tokens)


@kernels
@modes
def test_experts_that_all_or_no_tokens_choose_equal_the_naive_twin(
    folders, weight_format, activations, kernel
):
    folder = folders / weight_format
    w = {weight.name: x.astype(np.float64) for weight, x in open_checkpoint(folder).read_weights()}
    x_TD = rows(121)
    h_TD = rms(x_TD.astype(np.float64), CONFIG) * w[LAYER + "post_attention_layernorm.weight"]
    expected_TD = moe_layer(h_TD, w, LAYER + "feed_forward.", CONFIG)
    model = load(folder, 2, activations=activations, kernel=kernel)
    for tokens in (4, 5, 121):
        y_TD = model.probe(tokens).feed_forward(0, x_TD[:tokens]).y_TD
        error_TD = np.abs(y_TD - expected_TD[:tokens])
        allowed = 1e-5 if activations == "fp32" else 0.03
        assert error_TD.max() <= allowed * np.abs(expected_TD).max()


@kernels
@modes
def test_a_token_that_takes_every_expert(tmp_path, weight_format, activations, kernel):
    config = replace(CONFIG, num_experts_per_tok=7)
    write_random(tmp_path / "model", config, weight_format)
    model = load(tmp_path / "model", 3, activations=activations, kernel=kernel)
    x_TD = rows(65)
    alone_TD = [model.probe(1).feed_forward(0, x_D).y_TD for x_D in x_TD[:, None]]
    for tokens in (1, 2, 4, 5, 65):
        y_TD, _, ids_TK = model.probe(65).feed_forward(0, x_TD[:tokens])
        assert (np.sort(ids_TK, axis=-1) == np.arange(7)).all()
        assert y_TD.tobytes() == np.concatenate(alone_TD[:tokens]).tobytes()


@modes
def test_a_spoiled_token_leaves_those_that_share_its_experts_alone(
    folders, weight_format, activations
):
    model = load(folders / weight_format, 2, activations=activations)
    for tokens in (3, 70):
        x_TD, probe = rows(tokens), model.probe(tokens)
        clean_TD = probe.feed_forward(0, x_TD).y_TD
        for bad in (np.nan, np.inf):
            x_TD[1, 7] = bad
            y_TD, _, ids_TK = probe.feed_forward(0, x_TD)
            assert not np.isfinite(y_TD[1]).any()
            assert len(set(ids_TK[1])) == 3 and ids_TK.min() >= 0 and ids_TK.max() < 7
            others = np.arange(tokens) != 1
            assert y_TD[others].tobytes() == clean_TD[others].tobytes()
