"""Small models after some steps of quantisation-aware training, and the files they leave.

B batch, T tokens, V vocabulary.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.nn.utils import parametrize

from mobilemoe.checkpoint import Checkpoint, write_checkpoint
from mobilemoe.config import ModelConfig
from mobilemoe.model import MobileMoE
from mobilemoe.quant.fake import enable_fake_quant, float_weights
from mobilemoe.train.loss import cross_entropy

SMALL = ModelConfig(
    vocab_size=160,
    hidden_size=96,
    intermediate_size=32,
    intermediate_size_mlp=64,
    num_hidden_layers=3,
    num_attention_heads=6,
    num_key_value_heads=2,
    head_dim=16,
    num_local_experts=7,
    num_experts_per_tok=3,
    max_position_embeddings=640,
    rope_theta=10_000.0,
    rope_scaling_factor=1.0,
)
CONFIGS = {
    "moe": SMALL,
    "interleaved": replace(SMALL, interleave_moe_layer_step=2),
    "untied": replace(SMALL, tie_word_embeddings=False),
    "no-shared-expert": replace(SMALL, intermediate_size_mlp=0),
    "dense": replace(SMALL, num_local_experts=0, num_experts_per_tok=0, intermediate_size=0),
}


def float_model(config: ModelConfig, seed: int = 0) -> MobileMoE:
    """Fresh weights with products of unit variance, uneven norms and biases in use."""
    generator = torch.Generator().manual_seed(seed)
    model = MobileMoE(config)
    kinds = {weight.name: weight.kind for weight in config.weights()}
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            noise = torch.randn(tensor.shape, generator=generator)
            if kinds[name] == "norm":
                tensor.copy_(1 + 0.1 * noise)
            elif kinds[name] == "expert_bias":
                tensor.copy_((0.05 * noise).bfloat16())
            else:
                fan_in = 1 if kinds[name] == "embedding" else tensor.shape[1]
                tensor.copy_(noise / fan_in**0.5)
    return model


def train(model: MobileMoE, steps: int = 3) -> MobileMoE:
    """Take some steps of AdamW on a learnable sequence, as the training loop does."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(steps):
        starts_B1 = torch.arange(4)[:, None] * 7 + step
        ids_BT = (starts_B1 + torch.arange(24)) % model.config.vocab_size
        with parametrize.cached():
            h_BTD = model.hidden(ids_BT)
            targets_N = ((ids_BT + 1) % model.config.vocab_size).flatten()
            losses = cross_entropy(h_BTD.flatten(0, 1), model.head_weight, targets_N)
            (losses.total / targets_N.numel()).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def trained(config: ModelConfig, int8: bool) -> MobileMoE:
    """The fake-quantised model after its training."""
    model = float_model(config)
    enable_fake_quant(model, config.weights(), int8_activations=int8)
    return train(model)


def export(model: MobileMoE, folder: Path) -> Checkpoint:
    """Write the INT4 file of `model`."""
    floats = float_weights(model, model.config.weights())
    return write_checkpoint(
        folder, model.config, "int4", lambda name: floats[name].detach().numpy()
    )


def some_ids(config: ModelConfig, tokens: int = 64) -> list[int]:
    """Token ids without a pattern."""
    return np.random.default_rng(5).integers(0, config.vocab_size, tokens).tolist()
