"""Random checkpoints: the exact layout, the same bytes for a seed, little memory, even routing."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from checkpoint_support import CONFIGS, SMALLEST, folder_bytes

from mobilemoe import engine
from mobilemoe.checkpoint import init_checkpoint, open_checkpoint
from mobilemoe.config import ModelConfig
from mobilemoe.quant import dequantize, quantize


@pytest.mark.parametrize("weight_format", ["int4", "bf16"])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_it_opens_and_has_the_planned_bytes(tmp_path, config, weight_format):
    written = init_checkpoint(tmp_path / "model", config, weight_format, seed=0)
    assert open_checkpoint(tmp_path / "model") == written
    assert written.config == config
    assert written.tensors().tensor_bytes == config.weight_bytes(weight_format)


def test_the_seed_decides_every_byte(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        init_checkpoint(tmp_path / name, SMALLEST, "int4", seed)
    first, same, other = (folder_bytes(tmp_path / name) for name in "abc")
    assert first == same
    assert first["model.safetensors"] != other["model.safetensors"]


def test_no_two_weights_are_alike(tmp_path):
    written = init_checkpoint(tmp_path / "model", SMALLEST, "bf16", seed=0)
    seen = [values.ravel()[:32].tobytes() for _, values in written.read_weights()]
    assert len(set(seen)) == len(seen)


def test_both_formats_round_the_same_weights(tmp_path):
    weights = {}
    for weight_format in ("bf16", "int4"):
        written = init_checkpoint(tmp_path / weight_format, SMALLEST, weight_format, seed=0)
        weights[weight_format] = dict(written.read_weights())
    for weight, rounded in weights["int4"].items():
        wide = weights["bf16"][weight]
        if weight.kind in ("embedding", "linear", "expert"):
            wide = dequantize(*quantize(wide))
            scale = np.abs(rounded).max() / 7
            assert np.abs(rounded - wide).max() < 1.2 * scale, weight.name  # at most one step
            assert np.mean(rounded == wide) > 0.5 or np.abs(rounded - wide).mean() < 0.05 * scale
        else:
            assert np.allclose(rounded, wide, rtol=2**-8), weight.name


def test_routing_spreads_over_all_experts(tmp_path):
    """Also in the deepest layer of a model as deep as S, and for a text and not one token."""
    config = replace(
        ModelConfig.preset("S"),
        vocab_size=2048,
        hidden_size=256,
        intermediate_size=64,
        intermediate_size_mlp=256,
        num_attention_heads=4,
        num_key_value_heads=2,
        bos_token_id=0,
        eos_token_id=(1,),
    )
    init_checkpoint(tmp_path / "model", config, "int4", seed=0)
    session = engine.load(tmp_path / "model", context=512).session()
    logits_TV = session.append_all(np.random.default_rng(0).integers(0, 2048, 384))
    for topk_ids_TK in session.routing():
        load_E = np.bincount(topk_ids_TK.ravel(), minlength=60)
        assert load_E.min() > 0
        assert load_E.max() < 4 * load_E.mean()
    assert len(set(logits_TV.argmax(axis=1))) > 200


MEMORY = """
import resource, sys
from dataclasses import replace
from pathlib import Path
from mobilemoe.checkpoint import init_checkpoint
from mobilemoe.config import ModelConfig
from mobilemoe.profile.memory import peak_rss_mib

config = replace(ModelConfig.preset("L"), num_hidden_layers=1, vocab_size=64_000,
                 bos_token_id=0, eos_token_id=(1,))
before = peak_rss_mib()
written = init_checkpoint(Path(sys.argv[1]), config, "int4", 0)
largest = max(4 * weight.size for weight in config.weights()) / 2**20
print(largest, peak_rss_mib() - before)
"""


def test_memory_does_not_follow_the_largest_tensor(tmp_path):
    """One layer of L: its fused experts alone are 375 MiB in float32."""
    command = [sys.executable, "-c", MEMORY, str(tmp_path / "model")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    largest, growth = map(float, done.stdout.split())
    assert largest > 300
    assert growth < 64
