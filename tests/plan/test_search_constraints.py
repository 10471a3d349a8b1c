"""Constraints refuse what they cannot honour."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mobilemoe import MobileMoEError
from mobilemoe.plan import Constraints, plan
from mobilemoe.plan.device import load_profile

ANY = Constraints(3_000_000_000)
PHONE = load_profile("galaxy-s25")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("memory_bytes", 0),
        ("memory_bytes", 3e9),
        ("context", True),
        ("vocab_size", 255),
        ("kv_format", "int4"),
        ("flops_per_token", 0),
        ("train_flops", -1.0),
        ("train_flops", float("nan")),
        ("tokens", float("inf")),
        ("tokens", 0),
        ("granularities", (3,)),
        ("prefer", "beauty"),
        ("decode_depth", 8193),
    ],
)
def test_bad_values_are_refused(field: str, value: object) -> None:
    with pytest.raises(MobileMoEError, match="allowed"):
        replace(ANY, **{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("field", ["granularities", "shared_expert"])
def test_an_empty_choice_is_refused(field: str) -> None:
    with pytest.raises(MobileMoEError, match="may not be empty"):
        replace(ANY, **{field: ()})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "value"),
    [("decode_tok_s", 50.0), ("ttft_s", 1.0), ("threads", 4), ("decode_depth", 9)],
)
def test_speeds_need_a_device(field: str, value: float) -> None:
    with pytest.raises(MobileMoEError, match=f"{field} is .*no device"):
        replace(ANY, **{field: value})  # type: ignore[arg-type]
    assert replace(ANY, device=PHONE, **{field: value}).device is PHONE  # type: ignore[arg-type]


def test_the_prompt_must_fit_the_context() -> None:
    with pytest.raises(MobileMoEError, match="prompt_tokens is 9000"):
        replace(ANY, device=PHONE, ttft_s=1.0, prompt_tokens=9000)


def test_threads_that_the_profile_does_not_know_are_refused() -> None:
    with pytest.raises(MobileMoEError, match="threads is 3"):
        plan(replace(ANY, device=PHONE, threads=3))


def test_a_faster_prompt_and_a_deeper_cache_are_different_limits() -> None:
    by_prompt = replace(ANY, device=PHONE, ttft_s=2.5, flops_per_token=1_900_000_000)
    chosen = plan(by_prompt, with_sensitivity=False).chosen
    assert chosen.ttft_s is not None
    assert chosen.ttft_s <= 2.5
    shallow = replace(ANY, device=PHONE, decode_tok_s=40.0)
    deep = replace(shallow, decode_depth=8192)
    assert shallow.depth == 1024
    fast, slow = (plan(asked, with_sensitivity=False).chosen for asked in (shallow, deep))
    assert slow.active_params < fast.active_params
