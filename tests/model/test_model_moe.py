"""The MoE layer against its naive twin, values and gradients.

T tokens, D hidden, E experts, K top-k.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from model_support import SMALL, fresh_moe, normal

from mobilemoe.config import ModelConfig
from mobilemoe.model import combine, experts
from mobilemoe.model.naive import naive_moe

SHAPES = {
    "small": SMALL,
    "no-shared-expert": replace(SMALL, intermediate_size_mlp=0),
    "one-expert": replace(SMALL, num_local_experts=1, num_experts_per_tok=1),
    "all-experts": replace(SMALL, num_experts_per_tok=6),
    "top-1": replace(SMALL, num_experts_per_tok=1),
    "wide": replace(SMALL, hidden_size=64, intermediate_size=96, num_local_experts=20),
}
# Sums of up to 96 float32 products in another order: 96 x 2^-24 of values near 1, some thrice.
CLOSE = {"rtol": 2e-5, "atol": 2e-5}


@torch.no_grad()
@pytest.mark.parametrize("tokens", [1, 2, 17])
@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
def test_layer_equals_the_naive_one(config, tokens):
    layer = fresh_moe(config, seed=tokens)
    x_TD = normal(tokens, config.hidden_size, seed=tokens)
    torch.testing.assert_close(layer(x_TD[None])[0], naive_moe(layer, x_TD), **CLOSE)


@torch.no_grad()
def test_a_batch_is_its_rows():
    layer, x_BTD = fresh_moe(SMALL), normal(3, 5, 32)
    expected = torch.stack([naive_moe(layer, x_TD) for x_TD in x_BTD])
    torch.testing.assert_close(layer(x_BTD), expected, **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("favoured", [[0], [5], [1, 3], [0, 4, 5]])
def test_experts_without_tokens_and_experts_with_all(favoured):
    """A large bias sends every token to the favoured experts; the rest may get none."""
    config = replace(SMALL, num_experts_per_tok=len(favoured))
    layer = fresh_moe(config)
    layer.expert_bias.zero_()[favoured] = 10
    x_TD, trace = normal(9, 32), []
    y_TD = layer(x_TD[None], trace=trace)[0]
    expected = [9 if e in favoured else 0 for e in range(6)]
    assert trace[0].tokens_per_expert_E.tolist() == expected
    torch.testing.assert_close(y_TD, naive_moe(layer, x_TD), **CLOSE)


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
def test_gradients_equal_those_of_the_naive_layer(config: ModelConfig):
    layer = fresh_moe(config)
    upstream_TD = normal(7, config.hidden_size, seed=1)
    gradients = []
    for forward in (lambda x: layer(x[None])[0], lambda x: naive_moe(layer, x)):
        x_TD = normal(7, config.hidden_size).requires_grad_()
        layer.zero_grad()
        (forward(x_TD) * upstream_TD).sum().backward()
        named = {name: p.grad.clone() for name, p in layer.named_parameters()}
        gradients.append({"x": x_TD.grad} | named)
    assert gradients[0].keys() == gradients[1].keys()
    for name, actual in gradients[0].items():
        expected = gradients[1][name]
        limit = 1e-5 * max(1.0, float(expected.abs().max()))
        assert (actual - expected).abs().max() < limit, name
    # The weight of a single choice is always 1: only with two or more does the router learn.
    if config.num_local_experts > config.num_experts_per_tok > 1:
        assert gradients[0]["router.weight"].abs().max() > 0


def test_an_expert_without_tokens_has_zero_gradient():
    layer = fresh_moe(replace(SMALL, num_experts_per_tok=2))
    layer.expert_bias.zero_()[[1, 4]] = 10
    layer(normal(1, 6, 32)).sum().backward()
    used = layer.experts.gate_up_proj.grad.abs().amax((1, 2)) > 0
    assert used.tolist() == [False, True, False, False, True, False]


@torch.no_grad()
def test_dropping_every_choice_of_a_token_leaves_the_shared_expert():
    """All tokens want the same experts and one slot each is open: only the first is served."""
    config = replace(SMALL, num_experts_per_tok=2)
    layer = fresh_moe(config)
    layer.expert_bias.zero_()[[2, 3]] = 10
    x_TD, trace = normal(5, 32), []
    y_TD = layer(x_TD[None], capacity_factor=0.1, trace=trace)[0]
    assert trace[0].dropped == 8
    torch.testing.assert_close(y_TD[0], naive_moe(layer, x_TD)[0], **CLOSE)
    torch.testing.assert_close(y_TD[1:], layer.shared_expert(x_TD[1:]), **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("factor", [0.5, 1.0, 1.5])
def test_capacity_is_the_factor_times_the_balanced_load(factor):
    layer, trace = fresh_moe(SMALL), []
    layer(normal(1, 40, 32), capacity_factor=factor, trace=trace)
    capacity = round(factor * 40 * 3 / 6)
    over = (trace[0].tokens_per_expert_E - capacity).clamp(min=0)
    assert trace[0].dropped == int(over.sum())
    assert trace[0].dropped > 0


@torch.no_grad()
def test_experts_take_their_own_rows_gate_before_up():
    gate_up_EDF, down_EFD = normal(3, 4, 10, seed=1), normal(3, 5, 4, seed=2)
    x_ND = normal(6, 4)
    y_ND = experts(x_ND, (2, 0, 4), gate_up_EDF, down_EFD)
    for row, expert in enumerate([0, 0, 2, 2, 2, 2]):
        gate, up = x_ND[row] @ gate_up_EDF[expert, :, :5], x_ND[row] @ gate_up_EDF[expert, :, 5:]
        expected = (gate / (1 + (-gate).exp()) * up) @ down_EFD[expert]
        torch.testing.assert_close(y_ND[row], expected, **CLOSE)


@torch.no_grad()
def test_combine_adds_nothing_for_dropped_choices():
    weights_TK = torch.tensor([[0.5, 2.0], [1.0, 3.0]])
    y_ND = torch.tensor([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0]])
    y_TD = combine(y_ND, torch.tensor([3, 0, 1]), weights_TK)  # choice 2 (token 1) is dropped
    assert y_TD.tolist() == [[9.0, 90.0], [3.0, 30.0]]


@torch.no_grad()
def test_combine_of_nothing_is_zero():
    empty = torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)
    assert torch.equal(combine(*empty, torch.ones(3, 2)), torch.zeros(3, 4))
