"""A recipe from texts to an INT4 file: four stages, exact resume, honest refusals."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TypeVar

import pytest
from pipeline_support import write_inputs

import mobilemoe
from mobilemoe.checkpoint import ChatFormat, open_checkpoint
from mobilemoe.errors import MobileMoEError
from mobilemoe.pipeline import DataReady, Finished, RunEvent, RunResult, Saved, Stopped, carry_out
from mobilemoe.recipe import load_recipe
from mobilemoe.train import StepMetrics
from mobilemoe.train.journal import read_journal
from mobilemoe.train.state import STATE_FILE

Kind = TypeVar("Kind")
STAGES = ("pretrain", "midtrain", "sft", "qat")


class Watcher:
    """Keeps every event, and asks to stop after `limit` steps in all."""

    def __init__(self, limit: int | None = None) -> None:
        self.events: list[RunEvent] = []
        self.limit = limit

    def watch(self, event: RunEvent) -> None:
        """Keep one event."""
        self.events.append(event)

    def stopping(self) -> bool:
        """Whether enough steps were seen."""
        return self.limit is not None and self.steps >= self.limit

    @property
    def steps(self) -> int:
        """Steps seen so far."""
        return len(self.of(StepMetrics))

    def of(self, kind: type[Kind]) -> list[Kind]:
        """The events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture(scope="module")
def recipe_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny recipe, its texts and its tokenizer."""
    return write_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def finished(
    recipe_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunResult, Watcher]:
    """An uninterrupted run and what it said."""
    return run(recipe_path, tmp_path_factory.mktemp("whole") / "run")


def run(
    recipe_path: Path, out: Path, limit: int | None = None, resume: bool = False
) -> tuple[RunResult, Watcher]:
    """Carry the recipe out in `out`."""
    watcher = Watcher(limit)
    recipe = load_recipe(str(recipe_path))
    result = carry_out(recipe, out, watcher.watch, watcher.stopping, resume=resume)
    return result, watcher


def digests(out: Path) -> dict[str, str]:
    """SHA-256 of the state of every stage and of the shipped weights."""
    files = [out / "stages" / name / STATE_FILE for name in STAGES]
    files += sorted((out / "model").glob("*.safetensors"))
    return {str(f.relative_to(out)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def test_every_stage_runs_and_lowers_what_it_is_for(
    finished: tuple[RunResult, Watcher],
) -> None:
    result, watcher = finished
    assert [stage.stage for stage in result.stages] == list(STAGES)
    pretrain, _, sft, _ = result.stages
    assert pretrain.after["words"] < 0.8 * pretrain.before["words"]
    assert sft.after["talk"] < sft.before["talk"]
    recipe = load_recipe(str(result.folder / "recipe.toml"))
    assert watcher.steps == sum(stage.steps for stage in recipe.stages)
    assert [event.stage for event in watcher.of(Finished)] == list(STAGES)
    assert all(event.mfu is not None and event.mfu > 0 for event in watcher.of(StepMetrics))


def test_the_tokens_are_accounted_for(finished: tuple[RunResult, Watcher]) -> None:
    (ready,) = finished[1].of(DataReady)
    text = "\n".join(ready.lines)
    assert "texts: " in text
    assert "pretrain, texts: 120 rows" in text
    assert "sft, talks: 36 rows" in text


def test_the_journal_holds_what_was_said(finished: tuple[RunResult, Watcher]) -> None:
    result, watcher = finished
    written = [
        event
        for name in STAGES
        for event in read_journal(result.folder / "stages" / name / "metrics.jsonl")
        if isinstance(event, StepMetrics)
    ]
    assert written == watcher.of(StepMetrics)


def test_the_checkpoints_are_those_of_the_release(finished: tuple[RunResult, Watcher]) -> None:
    folder = finished[0].folder
    formats = {name: open_checkpoint(folder / name).weight_format for name in ("base", "sft")}
    assert formats == {"base": "bf16", "sft": "bf16"}
    assert ChatFormat.from_folder(folder / "sft")
    with pytest.raises(MobileMoEError, match="chat template"):
        ChatFormat.from_folder(folder / "base")


def test_the_engine_runs_what_was_trained(finished: tuple[RunResult, Watcher]) -> None:
    model = mobilemoe.load(finished[0].folder / "model", context=64)
    text = "".join(token.text for token in model.generate("red green", max_new_tokens=12))
    assert text.strip()


@pytest.mark.parametrize("limit", [1, 30, 50])
def test_a_stopped_run_goes_on_to_the_same_bits(
    limit: int, recipe_path: Path, finished: tuple[RunResult, Watcher], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with pytest.raises(Stopped):
        run(recipe_path, out, limit)
    _, watcher = run(recipe_path, out, resume=True)
    assert watcher.steps == finished[1].steps - limit
    assert digests(out) == digests(finished[0].folder)
    lines = (out / "stages/pretrain/metrics.jsonl").read_text().splitlines()
    assert sum(json.loads(line)["event"] == "step" for line in lines) == 30


def test_a_finished_run_is_not_trained_again(
    recipe_path: Path, finished: tuple[RunResult, Watcher]
) -> None:
    before = digests(finished[0].folder)
    again, watcher = run(recipe_path, finished[0].folder, resume=True)
    assert watcher.steps == 0
    assert not watcher.of(Saved)
    assert all(event.resumed for event in watcher.of(Finished))
    assert again.stages == finished[0].stages
    assert digests(again.folder) == before


def test_a_run_is_not_overwritten(recipe_path: Path, finished: tuple[RunResult, Watcher]) -> None:
    with pytest.raises(MobileMoEError, match="holds a run already"):
        run(recipe_path, finished[0].folder)


def test_a_folder_with_other_things_is_left_alone(recipe_path: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(MobileMoEError, match="not empty"):
        run(recipe_path, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def carry(recipe_path: Path, out: Path, *changes: str, only: str | None = None) -> RunResult:
    """Resume with changes of the recipe."""
    recipe = load_recipe(str(recipe_path), changes)
    watcher = Watcher()
    return carry_out(recipe, out, watcher.watch, watcher.stopping, only, resume=True)


def test_another_recipe_may_not_go_on_and_says_what_differs(
    recipe_path: Path, finished: tuple[RunResult, Watcher]
) -> None:
    with pytest.raises(MobileMoEError, match=r"sft\.lr: 0\.002 -> 0\.003"):
        carry(recipe_path, finished[0].folder, "sft.lr=3e-3")


def test_how_a_run_uses_its_machine_may_change(
    recipe_path: Path, finished: tuple[RunResult, Watcher]
) -> None:
    assert carry(recipe_path, finished[0].folder, "run.save_every_seconds=9").stages


def test_one_stage_at_a_time(
    recipe_path: Path, finished: tuple[RunResult, Watcher], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with pytest.raises(MobileMoEError, match="midtrain starts from pretrain"):
        carry(recipe_path, out, only="midtrain")
    for name in STAGES:
        assert [s.stage for s in carry(recipe_path, out, only=name).stages] == [name]
    assert digests(out) == digests(finished[0].folder)


def test_an_unknown_stage_is_refused(recipe_path: Path, tmp_path: Path) -> None:
    with pytest.raises(MobileMoEError, match="stage is 'rlhf'; allowed: pretrain"):
        carry(recipe_path, tmp_path / "run", only="rlhf")


def test_a_missing_tokenizer_is_named(recipe_path: Path, tmp_path: Path) -> None:
    with pytest.raises(MobileMoEError, match=r"nowhere.*tokenizer\.json"):
        carry(recipe_path, tmp_path / "run", 'tokenizer="nowhere"')
