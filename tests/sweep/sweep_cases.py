"""A sweep that takes seconds, as text, so that tests change a line of it."""

from __future__ import annotations

SMALL = """
name = "small"

[training]
vocab_size = 4096
context = 32
batch_tokens = 128
warmup_steps = 4
final_lr = 0.1
capacity_factor = 0
bias_update_rate = 1e-2
z_loss = 1e-4
heldout_tokens = 256

[training.mixture]
code = 0.5
math = 0.5

[sizes.tiny]
hidden_size = 32
layers = 1
heads = 1
kv_heads = 1
head_dim = 32
lr = 4e-3

[grids.experts]
sizes = ["tiny"]
expert_equivalents = [1, 2]
granularity = [4]
shared_expert = [true]
tokens = [512]
seeds = [0, 1]

[grids.shared]
sizes = ["tiny"]
expert_equivalents = [2]
granularity = [4]
shared_expert = [true, false]
tokens = [512]
seeds = [0]
"""
KEYS = (
    "tiny/dense/512/seed0",
    "tiny/E2-g4-shared/512/seed0",
    "tiny/dense/512/seed1",
    "tiny/E2-g4-shared/512/seed1",
    "tiny/E2-g4/512/seed0",
)
