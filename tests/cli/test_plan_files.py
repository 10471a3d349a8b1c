"""The files of `mobilemoe plan`: a recipe that can be trained, a config, a law of one's own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from mobilemoe import ModelConfig
from mobilemoe.plan import published_law
from mobilemoe.plan.law import save_law
from mobilemoe.recipe import load_recipe

from .conftest import Run


def test_the_recipe_is_one_that_train_plans_for(run: Run, tmp_path: Path) -> None:
    recipe, config = tmp_path / "mine.toml", tmp_path / "config.json"
    done = run(
        *("plan", "--memory", "5GB", "--flops", "1.1G", "--tokens", "300B"),
        *("--recipe", recipe, "--config", config, "--json"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    written = load_recipe(recipe)
    assert written.name == "mine"
    assert written.stages[0].tokens == 300_000_000_000
    assert written.model == ModelConfig.preset("M")
    assert json.loads(config.read_text()) == document["config"]
    dry = run("train", recipe, "--dry-run", "--gpus", "256", "--gpu", "h100", "--json")
    assert (dry.returncode, dry.stderr) == (0, "")


def test_a_law_of_ones_own_decides(run: Run, tmp_path: Path) -> None:
    """With an exponent that makes experts useless, one is enough."""
    law = replace(published_law(), delta=0.5)
    save_law(law, tmp_path / "law.json")
    options = ("--memory", "5GB", "--flops", "1.1G", "--json")
    done = run("plan", *options, "--law", tmp_path / "law.json")
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    best = law.best_num_experts()
    assert best != 8
    assert document["chosen"]["expert_equivalents"] == best


def test_a_law_of_one_expert_count_is_refused(run: Run, tmp_path: Path) -> None:
    save_law(published_law().dense_law(1), tmp_path / "dense.json")
    done = run("plan", "--law", tmp_path / "dense.json")
    assert (done.returncode, done.stdout) == (1, "")
    assert "one number of experts" in done.stderr
