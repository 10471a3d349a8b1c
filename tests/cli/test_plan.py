"""`mobilemoe plan`: the funnel on the screen, the design as JSON."""

from __future__ import annotations

import json

from mobilemoe import ModelConfig
from mobilemoe.plan import Budget, design

from .conftest import Run


def test_json_of_the_default_budget_is_nano(run: Run) -> None:
    done = run("plan", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert ModelConfig.from_dict(document["config"]) == ModelConfig.preset("nano")
    assert document["funnel"][-1]["left"] == 1
    assert document["notes"] == list(design(Budget()).notes)
    assert document["budget"]["memory_bytes"] == Budget().memory_bytes


def test_the_options_reach_the_budget(run: Run) -> None:
    done = run(
        *("plan", "--memory", "12MB", "--context", "512", "--flops", "8M"),
        *("--vocab", "8192", "--kv", "fp16", "--json"),
    )
    document = json.loads(done.stdout)
    budget = Budget(
        memory_bytes=12_000_000,
        context=512,
        flops_per_token=8_000_000,
        vocab_size=8192,
        kv_format="fp16",
    )
    assert ModelConfig.from_dict(document["config"]) == design(budget).config


def test_text_shows_every_step_and_note(run: Run) -> None:
    done = run("plan", COLUMNS="200")
    result = design(Budget())
    assert done.returncode == 0
    for step in result.funnel:
        assert step.rule in done.stdout
    for note in result.notes:
        assert note in done.stdout
    assert "dense twin" in done.stdout
