"""Fake quantisation: the values of the file, the gradient of the identity.

E experts, D hidden, F routed expert width, T tokens.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mobilemoe.checkpoint import write_checkpoint
from mobilemoe.config import ModelConfig
from mobilemoe.model import MobileMoE
from mobilemoe.quant import dequantize, quantize
from mobilemoe.quant.fake import (
    FakeBFloat16,
    FakeInt4,
    enable_fake_quant,
    float_weights,
    quantize_dequantize,
)
from mobilemoe.weights import QUANTIZED_KINDS

CONFIG = ModelConfig(
    vocab_size=48,
    hidden_size=64,
    intermediate_size=32,
    intermediate_size_mlp=96,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=32,
    num_local_experts=6,
    num_experts_per_tok=2,
    max_position_embeddings=128,
)
CONFIGS = {
    "moe": CONFIG,
    "interleaved": replace(CONFIG, interleave_moe_layer_step=2),
    "untied": replace(CONFIG, tie_word_embeddings=False),
    "no-shared-expert": replace(CONFIG, intermediate_size_mlp=0),
    "dense": replace(CONFIG, num_local_experts=0, num_experts_per_tok=0, intermediate_size=0),
}
SHAPES = st.one_of(
    st.tuples(st.sampled_from([32, 64, 160])),
    st.tuples(st.integers(1, 5), st.sampled_from([32, 96])),
    st.tuples(st.integers(1, 3), st.integers(1, 5), st.sampled_from([32, 64])),
)


def fresh_model(config: ModelConfig, seed: int = 0) -> MobileMoE:
    generator = torch.Generator().manual_seed(seed)
    model = MobileMoE(config).init_weights(generator)
    for name, tensor in model.state_dict().items():
        if "norm" in name:
            tensor += 0.1 * torch.randn(tensor.shape, generator=generator)
        if "expert_bias" in name:  # a value of the file's own bfloat16, as the balancer keeps it
            tensor += (0.05 * torch.randn(tensor.shape, generator=generator)).bfloat16()
    return model


def read(model: MobileMoE):
    floats = float_weights(model, model.config.weights())
    return lambda name: floats[name].detach().numpy()


def same_bits(actual: torch.Tensor, expected: np.ndarray) -> bool:
    return np.array_equal(actual.detach().numpy().view(np.uint32), expected.view(np.uint32))


@settings(max_examples=100, deadline=None)
@given(hnp.arrays(np.float32, SHAPES, elements=st.floats(-1000, 1000, width=32)))
def test_rounded_weights_equal_the_reference(weight):
    expected = dequantize(*quantize(weight))
    tensor = torch.from_numpy(weight)
    assert np.array_equal(quantize_dequantize(tensor).numpy(), expected)
    assert same_bits(FakeInt4()(tensor), expected)  # signed zeros included


@pytest.mark.parametrize("scale", [1e-9, 3e-7, 1e-6, 1e-3, 1.0, 60_000.0])
def test_rounded_weights_equal_the_reference_at_every_magnitude(scale):
    weight = scale * np.random.default_rng(1).standard_normal((3, 64, 96)).astype(np.float32)
    weight = weight.astype(np.float32)
    assert same_bits(FakeInt4()(torch.from_numpy(weight)), dequantize(*quantize(weight)))


def test_expert_groups_run_along_the_output_axis():
    weight_EDF = torch.zeros(2, 4, 64)
    weight_EDF[0, 0, 5], weight_EDF[0, 0, 6] = 7.5, 0.4  # one output group: the 0.4 is lost
    weight_EDF[1, 0, 5], weight_EDF[1, 1, 6] = 7.5, 0.375  # two input rows: both survive
    weight_EDF[1, 2, 31], weight_EDF[1, 2, 32] = 7.5, 0.375  # two output groups: both survive
    rounded_EDF = quantize_dequantize(weight_EDF)
    assert rounded_EDF[0, 0, 6] == 0
    assert rounded_EDF[1, 1, 6] == pytest.approx(0.35, abs=0.001)
    assert rounded_EDF[1, 2, 32] == pytest.approx(0.35, abs=0.001)


@pytest.mark.parametrize("rounding", [FakeInt4(), FakeBFloat16()])
def test_gradient_passes_straight_through(rounding):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 64, generator=generator, requires_grad=True)
    upstream = torch.randn(3, 64, generator=generator)
    rounded = rounding(weight)
    assert not torch.equal(rounded, weight)
    rounded.backward(upstream)
    assert torch.equal(weight.grad, upstream)


def test_fake_bfloat16_takes_bfloat16_values():
    weight = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(FakeBFloat16()(weight), weight.bfloat16().float())


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_every_kind_is_rounded_as_the_file_rounds_it(config):
    model = fresh_model(config)
    original = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    enable_fake_quant(model, config.weights())
    kinds = set()
    for weight in config.weights():
        module, _, attribute = weight.name.rpartition(".")
        seen = getattr(model.get_submodule(module), attribute).detach()
        before = original[weight.name]
        if weight.kind in QUANTIZED_KINDS:
            assert same_bits(seen, dequantize(*quantize(before.numpy()))), weight.name
        elif weight.kind == "norm":
            assert torch.equal(seen, before.bfloat16().float()), weight.name
        else:
            assert torch.equal(seen, before), weight.name
        kinds.add(weight.kind)
    expected = {"embedding", "linear", "norm"}
    assert kinds == (expected | {"expert", "router", "expert_bias"} if config.is_moe else expected)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_exported_file_computes_what_the_fake_quantised_model_computes(config, tmp_path):
    model = fresh_model(config)
    ids = torch.arange(20).view(1, 20) % config.vocab_size
    float_logits = model(ids)
    enable_fake_quant(model, config.weights())
    write_checkpoint(tmp_path / "model", config, "int4", read(model))
    shipped = MobileMoE.from_pretrained(tmp_path / "model")
    assert torch.equal(model(ids), shipped(ids))
    assert not torch.allclose(shipped(ids), float_logits, rtol=1e-3)


def test_float_weights_are_the_same_with_and_without_fake_quant():
    model = fresh_model(CONFIG)
    before = {n: t.detach().clone() for n, t in float_weights(model, CONFIG.weights()).items()}
    assert list(before) == [weight.name for weight in CONFIG.weights()]
    enable_fake_quant(model, CONFIG.weights())
    after = float_weights(model, CONFIG.weights())
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_float_weights_stay_the_trained_ones():
    model = fresh_model(CONFIG)
    enable_fake_quant(model, CONFIG.weights())
    floats = float_weights(model, CONFIG.weights())
    model(torch.arange(12).view(2, 6)).square().mean().backward()
    for weight in CONFIG.weights():
        gradient = floats[weight.name].grad
        if weight.kind == "expert_bias":
            assert gradient is None
        else:
            assert gradient is not None, weight.name
            assert gradient.abs().sum() > 0, weight.name
    parameters = {id(p) for p in model.parameters()}
    trained = [w.name for w in CONFIG.weights() if w.kind != "expert_bias"]
    assert all(id(floats[name]) in parameters for name in trained)
