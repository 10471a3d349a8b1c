"""All four stages of a recipe, or one of them, in a run folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mobilemoe.errors import MobileMoEError
from mobilemoe.pipeline.events import Finished, Stopped
from mobilemoe.pipeline.export import export_stage
from mobilemoe.pipeline.folder import RunFolder
from mobilemoe.pipeline.stage import Course, StageResult, train_stage
from mobilemoe.recipe import Recipe, Stage


@dataclass(frozen=True)
class RunResult:
    """What a run left: its stages' held-out losses and its checkpoints by name."""

    folder: Path
    stages: tuple[StageResult, ...]
    checkpoints: dict[str, Path]


def run_stages(course: Course, only: str | None = None) -> RunResult:
    """Do what is not done yet of all stages, or of stage `only`, and write its checkpoints.

    Raises:
        Stopped: if `course.stopping()` became true; everything is saved.
        MobileMoEError: if a stage is asked for whose start has not been trained, or one fails.
    """
    recipe, folder = course.recipe, course.folder
    if only is not None:
        recipe.stage(only)
    results, written = [], {}
    for stage, before in _in_order(recipe):
        if only is not None and stage.name != only:
            continue
        _check_start(folder, stage, before)
        resumed = folder.is_done(stage.name)
        if not resumed and any(course.ranks.decided(course.stopping())):
            raise Stopped
        result = train_stage(course, stage, folder.stage(before.name) if before else None)
        course.watch(Finished(stage.name, result.before, result.after, resumed))
        results.append(result)
        if course.ranks.rank == 0:
            made = export_stage(recipe, folder, stage, course.data.tokenizer.to_str())
            if made is not None:
                written[made.folder.name] = made.folder
    return RunResult(folder.path, tuple(results), written)


def _in_order(recipe: Recipe) -> list[tuple[Stage, Stage | None]]:
    """Return each stage with the one it starts from."""
    return list(zip(recipe.stages, (None, *recipe.stages[:-1]), strict=True))


def _check_start(folder: RunFolder, stage: Stage, before: Stage | None) -> None:
    if before is not None and not folder.is_done(before.name):
        raise MobileMoEError(
            f"stage {stage.name} starts from {before.name}, which is not trained in {folder.path}",
            hint=f"train it first with --stage {before.name}, or leave --stage out",
        )
