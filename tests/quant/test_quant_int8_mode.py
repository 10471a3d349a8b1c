"""Where activations become int8, where they stay float, and that training goes on around it.

B batch, T tokens, d head dim.
"""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from qat_support import CONFIGS, SMALL, float_model, train, trained
from torch.nn.utils import parametrize

from mobilemoe.errors import MobileMoEError
from mobilemoe.quant.activations import int8_values
from mobilemoe.quant.fake import FakeInt4, enable_fake_quant, float_weights
from mobilemoe.quant.int8_mode import FakeCache

IDS_BT = torch.arange(40).view(2, 20)

configs = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


def fake(config, int8):
    model = float_model(config)
    enable_fake_quant(model, config.weights(), int8_activations=int8)
    return model


def inputs_of(model, name):
    """Return what enters a module before and after its rounding, in one forward pass."""
    seen = []
    module = model.get_submodule(name)
    module.register_forward_pre_hook(lambda _, args: seen.append(args[0]), prepend=True)
    module.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model(IDS_BT)
    return seen


@pytest.mark.parametrize(
    ("name", "terms"),
    [
        ("layers.1.self_attn", 2),
        ("layers.1.self_attn.o_proj", 2),
        ("layers.1.feed_forward.shared_expert", 1),
        ("layers.1.feed_forward.shared_expert.down_proj", 1),
        ("layers.0.feed_forward", 1),  # dense
        ("layers.0.feed_forward.down_proj", 1),
    ],
)
def test_every_linear_reads_the_engine_s_terms(name, terms):
    before, after = inputs_of(fake(CONFIGS["interleaved"], True), f"model.{name}")
    assert torch.equal(after, int8_values(before, terms))
    assert not torch.equal(after, before)


def test_the_router_reads_floats_and_the_experts_do_not():
    x_BTD = torch.randn(1, 30, 96, generator=torch.Generator().manual_seed(0))
    outputs, logits = [], []
    for int8 in (False, True):
        trace = []
        outputs.append(fake(SMALL, int8).model.layers[0].feed_forward(x_BTD, None, trace))
        logits.append(trace[0].router_logits_TE)
    assert torch.equal(*logits)
    assert 1e-3 < torch.dist(*outputs) / outputs[0].norm() < 0.05


def test_embeddings_are_not_rounded_to_int8():
    looked_up = [fake(SMALL, int8).model.embed_tokens(IDS_BT) for int8 in (False, True)]
    assert torch.equal(*looked_up)


@configs
def test_a_loop_that_applies_the_head_itself_reads_int8(config):
    model = fake(config, True)
    h_BTD = model.hidden(IDS_BT)
    assert torch.equal(model(IDS_BT), F.linear(h_BTD, model.head_weight))
    blocks = h_BTD.unflatten(-1, (-1, 32))
    integers = blocks / (blocks.abs().amax(-1, keepdim=True) / 127)
    assert (integers - integers.round()).abs().max() < 1e-3
    assert integers.round().abs().max() == 127


@configs
def test_gradients_reach_every_float_weight(config):
    model = fake(config, True)
    model(IDS_BT).square().mean().backward()
    floats = float_weights(model, config.weights())
    for weight in config.weights():
        gradient = floats[weight.name].grad
        if weight.kind == "expert_bias":
            assert gradient is None
        else:
            assert gradient.isfinite().all() and gradient.abs().sum() > 0, weight.name


def test_gradients_are_near_those_without_int8():
    """The straight-through gradient differs by what the activations do, about one percent."""
    gradients = []
    for int8 in (False, True):
        model = fake(SMALL, int8)
        model(IDS_BT).square().mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert F.cosine_similarity(*gradients, dim=0) > 0.99


def test_training_with_int8_learns():
    model = fake(SMALL, True)
    targets_N = ((IDS_BT + 1) % SMALL.vocab_size).flatten()
    before = F.cross_entropy(model(IDS_BT).flatten(0, 1), targets_N)
    after = F.cross_entropy(train(model, steps=15)(IDS_BT).flatten(0, 1), targets_N)
    assert after < before - 0.5


def test_training_and_evaluation_round_alike():
    model = fake(SMALL, True)
    assert torch.equal(model.train()(IDS_BT), model.eval()(IDS_BT))


def test_a_cached_step_rounds_each_weight_once():
    model, calls = fake(SMALL, True), []
    for module in model.modules():
        if isinstance(module, FakeInt4):
            module.register_forward_hook(lambda module, *_: calls.append(module))
    with parametrize.cached():
        first = model(IDS_BT)
        second = model(IDS_BT)
    assert len(calls) == len(set(calls)) == 1 + 3 * (4 + 2 + 3)
    assert torch.equal(first, second)
    assert torch.equal(first, model(IDS_BT))


def test_a_copy_computes_the_same_and_stands_alone():
    model = trained(SMALL, True)
    other = copy.deepcopy(model)
    assert torch.equal(other(IDS_BT), model(IDS_BT))
    expected = model(IDS_BT)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(2)
    assert torch.equal(model(IDS_BT), expected)
    assert not torch.equal(other(IDS_BT), expected)
    experts = other.model.layers[0].feed_forward.experts
    assert experts.compute.gate_up is experts.parametrizations.gate_up_proj[0]


@pytest.mark.parametrize("int8", [False, True])
def test_a_second_rounding_is_refused(int8):
    model = fake(SMALL, False)
    with pytest.raises(MobileMoEError, match="fake-quantised already"):
        enable_fake_quant(model, SMALL.weights(), int8_activations=int8)


@pytest.mark.parametrize(("d", "rounded"), [(16, True), (64, True), (512, True), (8, False)])
def test_a_head_that_the_int8_cache_does_not_take_stays(d, rounded):
    x_BGTd = torch.randn(1, 2, 3, d, generator=torch.Generator().manual_seed(0))
    stored = FakeCache()(x_BGTd)
    assert torch.equal(stored, int8_values(x_BGTd, block=d) if rounded else x_BGTd)


def test_the_state_dict_is_that_of_rounded_weights_alone():
    assert list(fake(SMALL, True).state_dict()) == list(fake(SMALL, False).state_dict())
