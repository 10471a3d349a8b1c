"""The logits of a fake-quantised model are the engine's to a bound derived for the whole pass.

`verify/spread.py` carries the errors of all parts to the logits; measured differences come out
at about what it expects, so whatever adds to them shows: see the mutations below.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from qat_logits import SHIPPED, compare_logits, int8_model
from qat_support import CONFIGS, SMALL, export, some_ids, trained
from safetensors.torch import load_file, save_file

from mobilemoe.model import MobileMoE
from mobilemoe.quant import int8_mode
from mobilemoe.quant.activations import int8_values

# Flips on the way to the logits hide little faults: the fewer layers, the fewer.
SHALLOW = replace(SMALL, num_hidden_layers=1)
both = pytest.mark.parametrize("int8", [False, True], ids=["exact", "int8"])


@both
@pytest.mark.parametrize("name", CONFIGS)
def test_logits_of_a_trained_model_are_the_engine_s(name, int8, tmp_path):
    config = CONFIGS[name]
    model = trained(config, int8)
    found = compare_logits(model, export(model, tmp_path / "m").folder, some_ids(config), int8)
    assert found.agrees, found.figures()
    assert found.total_ratio > 0.3, "a bound far above what is measured would show nothing"


@both
def test_logits_of_the_shipped_model_are_the_engine_s(int8):
    model = int8_model(SHIPPED) if int8 else MobileMoE.from_pretrained(SHIPPED).eval()
    found = compare_logits(model, SHIPPED, some_ids(model.config, 32), int8)
    assert found.agrees, found.figures()


def other_scale(folder, exponent):
    """Change one scale of the first shared expert's INT4 by 2^exponent units in its last place."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    part = "layers.0.feed_forward.shared_expert.down_proj"
    (name,) = (name for name in tensors if part in name and "scale" in name)
    bits = tensors[name].view(torch.int16).flatten()
    bits[tensors[name].flatten().argmax()] += 2**exponent
    save_file(tensors, path)


@pytest.mark.parametrize(
    ("config", "int8", "exponent"),
    [(SMALL, False, 0), (SHALLOW, True, 9)],
    ids=["exact, last bit", "int8, half as large again"],
)
def test_a_scale_that_is_off_is_out_of_bounds(config, int8, exponent, tmp_path):
    model = trained(config, int8)
    folder = export(model, tmp_path / "m").folder
    other_scale(folder, exponent)
    assert not compare_logits(model, folder, some_ids(config), int8).agrees


def rounded_down(x, terms=1, block=32):
    """Int8 values as `int8_values` gives them, but half a step lower."""
    largest = x.unflatten(-1, (-1, block)).abs().amax(-1, keepdim=True) / 127
    return int8_values(x, terms, block) - (largest / 2).expand(*largest.shape[:-1], block).flatten(
        -2
    )


@pytest.mark.parametrize("fault", ["none", "one term", "floor", "no cache", "no int8"])
def test_another_rounding_is_out_of_bounds(fault, tmp_path, monkeypatch):
    if fault == "one term":
        monkeypatch.setattr(int8_mode, "ATTENTION_TERMS", 1)
    elif fault == "floor":
        monkeypatch.setattr(int8_mode, "fake_int8", rounded_down)
    model = trained(SHALLOW, int8=fault != "no int8")
    if fault == "no cache":
        model.model.layers[0].self_attn.stored = torch.nn.Identity()
    folder = export(model, tmp_path / "m").folder
    found = compare_logits(model, folder, some_ids(SHALLOW), True)
    assert found.agrees == (fault == "none"), found.figures()
