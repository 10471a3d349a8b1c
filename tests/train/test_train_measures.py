"""Router entropy, losses by domain, FLOPs and utilisation: by hand, at the limits, in parts."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mobilemoe.config import ModelConfig
from mobilemoe.train.measures import (
    domain_losses,
    domain_means,
    domain_sums,
    mfu,
    router_entropy,
)
from mobilemoe.train.peaks import GPU_PEAKS, measured_peak, peak_flops, stated_peak


def test_entropy_is_one_where_all_experts_score_alike_and_zero_where_one_has_all() -> None:
    assert router_entropy([torch.full((5, 8), -3.0)]) == pytest.approx(1.0)
    sure = torch.full((5, 8), -90.0)
    sure[:, 2] = 10.0
    assert router_entropy([sure]) == pytest.approx(0.0, abs=1e-6)


def test_entropy_by_hand_averages_tokens_and_layers() -> None:
    def logit(p: float) -> float:
        return math.log(p / (1 - p))

    first = torch.tensor([[logit(0.6), logit(0.2)], [0.0, 0.0]])  # shares 3/4, 1/4; 1/2, 1/2
    second = torch.tensor([[logit(0.9), logit(0.1)]])
    h = [-sum(p * math.log2(p) for p in (q, 1 - q)) for q in (0.75, 0.5, 0.9)]
    expected = ((h[0] + h[1]) / 2 + h[2]) / 2
    assert router_entropy([first, second]) == pytest.approx(expected, rel=1e-5)


def test_entropy_of_scores_that_underflow_is_finite() -> None:
    assert router_entropy([torch.full((2, 4), -300.0)]) == pytest.approx(1.0)


def test_a_model_that_decides_nothing_has_no_entropy() -> None:
    assert router_entropy([]) == 0.0
    assert router_entropy([torch.zeros(3, 1)]) == 0.0
    assert router_entropy([torch.zeros(0, 4)]) == 0.0


def test_losses_of_domains_count_learnt_tokens_only() -> None:
    losses = torch.tensor([[1.0, 2.0, 300.0], [4.0, 0.0, 6.0], [10.0, 20.0, 30.0]])
    learnt = torch.tensor([[True, True, False], [True, False, True], [False] * 3])
    assert domain_losses(losses, learnt, ("code", "math", "none")) == {"code": 1.5, "math": 5.0}
    assert domain_losses(losses, learnt, ("a", "a", "a")) == {"a": 13 / 4}


def test_positions_that_are_not_learnt_may_hold_anything() -> None:
    losses = torch.tensor([[1.0, math.nan, math.inf]])
    assert domain_losses(losses, torch.tensor([[True, False, False]]), ("code",)) == {"code": 1.0}


def test_one_domain_for_each_row_is_required() -> None:
    with pytest.raises(ValueError, match="zip"):
        domain_losses(torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool), ("code",))


@given(st.integers(1, 5), st.integers(0, 999))
def test_micro_batches_add_up_to_the_whole(cut: int, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    losses = torch.rand(6, 4, generator=draw)
    learnt = torch.rand(6, 4, generator=draw) < 0.5
    domains = [("code", "math", "web")[int(i)] for i in torch.randint(3, (6,), generator=draw)]
    parts: dict[str, tuple[float, int]] = {}
    for span in (slice(0, cut), slice(cut, 6)):
        for name, (total, count) in domain_sums(losses[span], learnt[span], domains[span]).items():
            old = parts.get(name, (0.0, 0))
            parts[name] = (old[0] + total, old[1] + count)
    assert domain_means(parts) == pytest.approx(domain_losses(losses, learnt, domains), rel=1e-12)


def test_training_flops_of_s_by_hand() -> None:
    config, context = ModelConfig.preset("S"), 2048
    attention = 2 * 768 * 768 + 2 * 768 * 256
    ffn = 4 * 3 * 768 * 384 + 3 * 768 * 1536 + 60 * 768
    scores = 2 * 768 * 1024.5  # queries times keys, shares times values, half of them causal
    macs = 20 * (attention + ffn + scores) + 128_256 * 768
    assert config.training_flops_per_token(context) == round(6 * macs)
    weights_only = 6 * config.active_params
    assert 1.0 < config.training_flops_per_token(context) / weights_only < 1.15


def test_utilisation_is_a_share_of_all_devices() -> None:
    assert mfu(1000.0, 2e9, 4e12) == 0.5
    assert mfu(1000.0, 2e9, 1e12, devices=4) == 0.5
    assert mfu(1000.0, 2e9, None) is None


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H100 NVL", "H100 NVL"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA A10", "A10"),
        ("NVIDIA L40S", "L40S"),
    ],
)
def test_gpus_are_known_by_the_names_their_driver_gives(name: str, known: str) -> None:
    assert stated_peak(name, "bf16") == GPU_PEAKS[known][0]
    assert stated_peak(name, "fp32") == GPU_PEAKS[known][1]
    assert stated_peak(name, "fp32", tf32=True) == GPU_PEAKS[known][0] / 2


def test_an_unknown_gpu_has_no_stated_peak() -> None:
    assert stated_peak("NVIDIA A1000 Laptop GPU", "bf16") is None
    assert peak_flops(torch.device("meta"), "fp32") is None


def test_a_cpu_is_measured_once() -> None:
    measured_peak.cache_clear()
    first = peak_flops(torch.device("cpu"), "fp32")
    assert first and first > 1e8
    assert peak_flops(torch.device("cpu"), "fp32") == first
    assert measured_peak.cache_info().misses == 1
