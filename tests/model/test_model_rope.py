"""Rotary positions and the normalisation after them.

T tokens, d head dim.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from model_support import SMALL, normal

from mobilemoe.config import ModelConfig
from mobilemoe.model.norm import RMSNorm, rms_norm
from mobilemoe.model.rope import apply_rope, rope_frequencies, rope_table

CPU = torch.device("cpu")
RELEASED = ModelConfig.preset("S")


def test_fourteen_of_32_released_frequencies_are_divided_by_16():
    actual = rope_frequencies(RELEASED).numpy()
    plain = 500_000.0 ** (-np.arange(0, 64, 2) / 64)
    divided = ~np.isclose(actual, plain, rtol=1e-12)
    assert divided.sum() == 14
    assert divided.tolist() == [False] * 18 + [True] * 14
    np.testing.assert_allclose(actual[divided], plain[divided] / 16, rtol=1e-12)
    wavelength = 2 * math.pi / plain
    assert np.array_equal(divided, wavelength > 8192)


@pytest.mark.parametrize("head_dim", [16, 32, 64, 128])
def test_without_scaling_the_frequencies_are_plain(head_dim):
    config = replace(SMALL, head_dim=head_dim, rope_scaling_factor=1.0)
    plain = config.rope_theta ** (-np.arange(0, head_dim, 2) / head_dim)
    np.testing.assert_allclose(rope_frequencies(config), plain, rtol=1e-12)


def test_pairs_are_interleaved_and_turn_by_position_times_frequency():
    x_Td = normal(40, 64)
    cos, sin = rope_table(RELEASED, 40, CPU)
    rotated = apply_rope(x_Td, cos, sin).double().numpy()
    z = x_Td[:, 0::2].double().numpy() + 1j * x_Td[:, 1::2].double().numpy()
    z = z * np.exp(1j * np.arange(40)[:, None] * rope_frequencies(RELEASED).numpy())
    # cos and sin are float32: an error of 2^-24 on values of up to 4
    np.testing.assert_allclose(rotated[:, 0::2], z.real, atol=2e-6)
    np.testing.assert_allclose(rotated[:, 1::2], z.imag, atol=2e-6)


def test_rotation_keeps_the_norm_of_every_pair_and_position_zero():
    x = normal(2, 3, 50, 64)
    rotated = apply_rope(x, *rope_table(RELEASED, 50, CPU))
    pairs = [t.unflatten(-1, (32, 2)).norm(dim=-1) for t in (x, rotated)]
    torch.testing.assert_close(pairs[1], pairs[0])
    assert torch.equal(rotated[:, :, 0], x[:, :, 0])


def test_scores_depend_on_the_distance_only():
    q_d, k_d = normal(64), normal(64, seed=1)
    cos, sin = rope_table(RELEASED, 100, CPU)

    def score(i: int, j: int) -> float:
        q, k = apply_rope(q_d, cos[i], sin[i]), apply_rope(k_d, cos[j], sin[j])
        return float(q.double() @ k.double())

    for distance in (0, 1, 13):
        expected = score(distance, 0)
        for j in (1, 40, 86):
            assert score(j + distance, j) == pytest.approx(expected, abs=1e-4)
    assert abs(score(1, 0) - score(0, 0)) > 0.01


def test_late_positions_are_as_exact_as_early_ones():
    """Angles are formed in float64: at position 8191 float32 would be off by 2^-11."""
    cos, sin = rope_table(RELEASED, 8192, CPU)
    angle = 8191 * rope_frequencies(RELEASED)
    assert (cos[-1].double() - angle.cos()).abs().max() < 2**-24
    assert (sin[-1].double() - angle.sin()).abs().max() < 2**-24


def test_rms_norm_divides_by_the_root_mean_square():
    x = normal(5, 32)
    expected = x.double() / (x.double().square().mean(-1, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(rms_norm(x, 1e-5).double(), expected, rtol=1e-6, atol=1e-7)
    assert torch.equal(rms_norm(torch.zeros(3, 8), 1e-5), torch.zeros(3, 8))


def test_rms_norm_of_low_precision_is_computed_in_float32():
    x = 300 * normal(4, 64).half()  # squares overflow float16
    assert rms_norm(x, 1e-5).dtype == torch.float16
    assert torch.equal(rms_norm(x, 1e-5), rms_norm(x.float(), 1e-5).half())


def test_a_learned_weight_scales_each_channel():
    norm = RMSNorm(4, 1e-5)
    x = normal(3, 4)
    assert torch.equal(norm(x), rms_norm(x, 1e-5))
    norm.weight.data.copy_(torch.tensor([1.0, 2.0, 0.0, -1.0]))
    assert torch.equal(norm(x), rms_norm(x, 1e-5) * norm.weight)
