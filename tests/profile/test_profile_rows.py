"""Rows by hand: speeds, percentiles, bytes, multiply-adds and shares."""

from __future__ import annotations

import pytest
from profile_support import CONFIG, DENSE, write

from mobilemoe.profile.cases import Case
from mobilemoe.profile.ceilings import Ceilings
from mobilemoe.profile.measure import Timing
from mobilemoe.profile.rows import make_row

CEILINGS = Ceilings(1, 10.0, 100.0, "x", 20.0, "y")
READY = {"activations": "int8", "kv_format": "int8"}
KV_ELEMENTS = 2 * 2 * 1 * 32  # keys and values, two layers, one head of 32
KV_INT8 = KV_ELEMENTS + 2 * 2 * 1 * 4  # each with a float32 scale
ATTENTION = 2 * 2 * 64  # two products of width 64, two layers


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write(tmp_path_factory.mktemp("rows") / "m")


def test_a_decode_row(checkpoint):
    rounds = ((0.001, 0.003), (0.002, 0.002), (0.001, 0.001))
    row = make_row(Timing(Case("decode", 2, 100, 1), rounds, READY, 2.0), checkpoint, CEILINGS)
    assert row.tok_s_all == pytest.approx((500, 500, 1000))
    assert row.tok_s == pytest.approx(500)
    assert row.bytes_per_token == CONFIG.step_weight_bytes("int4") + 101.5 * KV_INT8
    assert row.macs_per_token == CONFIG.macs_per_token() + round(101.5 * ATTENTION)
    assert row.macs_per_byte == pytest.approx(row.macs_per_token / row.bytes_per_token)
    assert row.ceiling == "read_gb_s"
    assert row.share_of_ceiling == pytest.approx(row.bytes_per_token * 500 / 10e9)
    assert row.unique_experts_per_token == 2
    assert row.ttft_ms is None
    assert row.tpot_ms == pytest.approx({"p50": 1.5, "p95": 2.75, "p99": 2.95})


def test_a_prefill_row(checkpoint):
    timing = Timing(Case("prefill", 10, 5, 1), ((0.01,), (0.02,), (0.04,)), READY, 4.5)
    row = make_row(timing, checkpoint, CEILINGS)
    assert row.tok_s == pytest.approx(500)
    weights = CONFIG.step_weight_bytes("int4", experts=4.5)
    assert row.bytes_per_token == pytest.approx((weights + 15 * KV_INT8) / 10)
    macs = CONFIG.macs_per_token(head=False) + round(10.5 * ATTENTION)
    assert row.macs_per_token == macs
    assert row.ceiling == "int8_gmac_s"
    assert row.share_of_ceiling == pytest.approx(macs * 500 / 100e9)
    assert row.unique_experts_per_token == pytest.approx(0.45)
    assert row.ttft_ms == pytest.approx({"p50": 20, "p95": 38})
    assert row.tpot_ms is None


def test_float_activations_are_held_against_the_float_peak(checkpoint):
    ready = {"activations": "fp32", "kv_format": "fp32"}
    timing = Timing(Case("prefill", 10, 0, 1), ((0.01,),), ready, 6.0)
    row = make_row(timing, checkpoint, CEILINGS)
    assert row.ceiling == "fp32_gmac_s"
    assert row.share_of_ceiling == pytest.approx(row.macs_per_token * 1000 / 20e9)
    assert row.bytes_per_token == pytest.approx(
        (CONFIG.step_weight_bytes("int4", 6) + 10 * 4 * KV_ELEMENTS) / 10
    )


def test_an_engine_that_counts_no_experts_is_given_them(checkpoint):
    ready = {"activations": "int8", "kv_format": "q8_0"}
    timing = Timing(Case("prefill", 10, 0, 1), ((0.01,),), ready)
    row = make_row(timing, checkpoint, CEILINGS, experts=3.0)
    assert row.unique_experts_per_token == pytest.approx(0.3)
    weights = CONFIG.step_weight_bytes("int4", experts=3)
    assert row.bytes_per_token == pytest.approx((weights + 10 * KV_ELEMENTS * 34 / 32) / 10)
    unknown = make_row(timing, checkpoint, CEILINGS)
    assert unknown.unique_experts_per_token is None
    assert unknown.bytes_per_token > row.bytes_per_token


def test_a_dense_model_has_no_experts(tmp_path):
    checkpoint = write(tmp_path, DENSE)
    timing = Timing(Case("decode", 1, 0, 1), ((0.01,),), READY, 0.0)
    row = make_row(timing, checkpoint, CEILINGS)
    assert row.unique_experts_per_token is None
    assert row.bytes_per_token == DENSE.weight_bytes("int4") + KV_INT8
