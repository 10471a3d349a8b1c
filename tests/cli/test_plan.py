"""`mobilemoe plan`: the account on the screen, the plan as JSON, and what is refused."""

from __future__ import annotations

import json

import pytest

from mobilemoe import ModelConfig
from mobilemoe.plan import Budget, Constraints, design, plan
from mobilemoe.plan.device import load_profile

from .conftest import Run


def test_without_options_it_is_the_demonstration(run: Run) -> None:
    done = run("plan", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert ModelConfig.from_dict(document["config"]) == ModelConfig.preset("nano")
    assert document["funnel"][-1]["left"] == 1
    assert document["confidence"] + document["notes"] == list(design(Budget()).notes)
    assert document["constraints"]["memory_bytes"] == Budget().memory_bytes
    assert document["constraints"]["flops_per_token"] == Budget().flops_per_token


def test_the_options_reach_the_constraints(run: Run) -> None:
    done = run(
        *("plan", "--memory", "20MB", "--context", "4096", "--flops", "20M", "--vocab", "8192"),
        *("--kv", "int8", "--device", "galaxy-s25", "--threads", "4", "--decode-tok-s", "40"),
        *("--decode-depth", "2048", "--ttft", "9", "--prompt", "2000", "--train-flops", "1e23"),
        *("--tokens", "400B", "--granularity", "16", "--no-shared-expert"),
        *("--extrapolate", "--prefer", "memory", "--json"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    asked = Constraints(
        memory_bytes=20_000_000,
        context=4096,
        flops_per_token=20_000_000,
        vocab_size=8192,
        device=load_profile("galaxy-s25"),
        threads=4,
        decode_tok_s=40.0,
        decode_depth=2048,
        ttft_s=9.0,
        prompt_tokens=2000,
        train_flops=1e23,
        tokens=400e9,
        granularities=(16,),
        shared_expert=(True, False),
        extrapolate=True,
        prefer="memory",
    )
    result = plan(asked, with_sensitivity=False)
    document = json.loads(done.stdout)
    assert document["config"] == result.chosen.config.to_dict()
    assert document["chosen"]["decode_tok_s"] == result.chosen.decode_tok_s
    assert len(document["front"]) == len(result.front)
    given = document["constraints"]
    assert given["device"] == "galaxy-s25"
    assert given["granularities"] == [16]


def test_a_device_brings_its_memory_and_a_large_memory_the_release_vocabulary(run: Run) -> None:
    done = run("plan", "--device", "galaxy-s25", "--json")
    given = json.loads(done.stdout)["constraints"]
    assert given["memory_bytes"] == load_profile("galaxy-s25").memory_bytes.value
    assert (given["vocab_size"], given["context"]) == (128_256, 8192)
    assert given["flops_per_token"] is None


def test_text_shows_every_step_reason_and_note(run: Run) -> None:
    arguments = ("plan", "--memory", "5GB", "--flops", "1.1G")
    done = run(*arguments, COLUMNS="400")
    result = plan(Constraints(5_000_000_000, flops_per_token=1_100_000_000))
    assert done.returncode == 0
    for step in result.funnel:
        assert step.rule in done.stdout
    for reason in result.reasons:
        assert reason.why in done.stdout
    for sentence in (*result.confidence, *result.notes):
        assert sentence in done.stdout
    for change in result.sensitivity:
        assert (change.change in done.stdout) == change.changes
    assert "dense twin" in done.stdout
    assert "1024 x 26" in done.stdout


def test_impossible_constraints_name_the_nearest_and_fail(run: Run) -> None:
    done = run("plan", "--memory", "100kB")
    assert (done.returncode, done.stdout) == (1, "")
    assert "memory_bytes 100000 is the binding constraint" in done.stderr
    assert "hint: allow memory_bytes" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--train-flops", "lots"), "is not a number"),
        (("--tokens", "0"), "is not a positive number"),
        (("--prefer", "beauty"), "beauty"),
        (("--prompt", "100"), "--prompt has no effect without --ttft"),
        (("--train-flops", "1e22", "device"), "--train-flops has no effect before device"),
    ],
)
def test_wrong_usage_is_status_two(run: Run, arguments: tuple[str, ...], message: str) -> None:
    done = run("plan", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--device", "pager"), "device is 'pager'"),
        (("--decode-tok-s", "50"), "there is no device"),
        (("--granularity", "3"), "granularities is 3"),
    ],
)
def test_what_cannot_be_honoured_is_refused(
    run: Run, arguments: tuple[str, ...], message: str
) -> None:
    done = run("plan", *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr
