"""One stage of a run: train, log, save, score held-out text before and after."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from mobilemoe.data import TrainingData
from mobilemoe.evaluate.heldout import heldout_loss
from mobilemoe.model import MobileMoE
from mobilemoe.pipeline.ahead import ReadAhead
from mobilemoe.pipeline.events import Saved, StageStarted, Stopped, Watch
from mobilemoe.pipeline.folder import RunFolder
from mobilemoe.recipe import Recipe, Stage
from mobilemoe.train import Settings, StepMetrics, Trainer, load_weights
from mobilemoe.train.events import TrainEvent
from mobilemoe.train.journal import JOURNAL_FILE, Journal
from mobilemoe.train.measures import mfu
from mobilemoe.train.parallel import Ranks, RankWorld
from mobilemoe.train.speedups import speed_up
from mobilemoe.train.trackers import Tracker

HELDOUT_TOKENS = 24_576  # per domain, at most; less where scoring would outlast training
HELDOUT_ROWS = 8


@dataclass(frozen=True)
class StageResult:
    """Held-out losses of a finished stage, nats per token by domain."""

    stage: str
    tokens: int
    before: Mapping[str, float]
    after: Mapping[str, float]


@dataclass(frozen=True)
class Course:
    """What all stages of a run share. `peak` is a device's FLOP/s, None if unknown."""

    recipe: Recipe
    folder: RunFolder
    data: TrainingData
    ranks: Ranks
    watch: Watch
    stopping: Callable[[], bool]
    tracker: Tracker
    peak: float | None


def train_stage(course: Course, stage: Stage, start: Path | None) -> StageResult:
    """Train `stage` to its end, from wherever its folder says it is.

    `start` is the folder of the stage whose weights it begins with; None draws fresh ones.

    Raises:
        Stopped: if `course.stopping()` became true; the state is saved.
        MobileMoEError: if training cannot go on or the disk refuses; the last state is intact.
    """
    (is_done,) = course.ranks.decided(course.folder.is_done(stage.name))
    if not is_done:
        torch.manual_seed(course.recipe.seed)
        batches = course.data.batches(stage, course.recipe.seed)
        rows = course.ranks.rows(stage.batch_size)
        with ReadAhead(lambda step: batches.batch_rows(step, rows)) as ahead:
            trainer = _trainer(course, stage, starting_model(course, start), ahead)
            _score(course, stage, trainer.model, "before")
            _train(course, stage, trainer)
            _score(course, stage, trainer.model, "after")
    losses = course.folder.heldout(stage.name)
    return StageResult(stage.name, stage.tokens, losses["before"], losses["after"])


def starting_model(course: Course, start: Path | None) -> MobileMoE:
    """Return fresh weights drawn from the recipe's seed, or those of the stage before."""
    model = MobileMoE(course.recipe.model)
    if start is None:
        return model.init_weights(torch.Generator().manual_seed(course.recipe.seed))
    return load_weights(model, start)


def _trainer(course: Course, stage: Stage, model: MobileMoE, batches: ReadAhead) -> Trainer:
    speed_up(model, course.recipe.run)
    settings = Settings.of(course.recipe)
    return Trainer(model, stage, batches, settings, RankWorld(course.ranks))


def _score(course: Course, stage: Stage, model: MobileMoE, when: str) -> None:
    """Score held-out text once; a resumed run keeps what its first start measured.

    Every process scores everything: a sharded model needs all of them at every layer.
    """
    name, context = stage.name, stage.context
    (is_known,) = course.ranks.decided(when in course.folder.heldout(name))
    if is_known:
        return
    limit = max(min(HELDOUT_TOKENS, stage.tokens // 16), HELDOUT_ROWS * context)
    losses = {}
    for domain in course.data.domains:
        if course.data.has_heldout(domain, context):
            batches = course.data.heldout_batches(domain, context, HELDOUT_ROWS, limit)
            losses[domain] = heldout_loss(model, batches).mean
            course.ranks.beat(0)
    if course.ranks.rank == 0:
        course.folder.keep_heldout(name, when, losses)
    course.ranks.wait()  # the others read it


def _train(course: Course, stage: Stage, trainer: Trainer) -> None:
    """Run the remaining steps; save now and then, at the end, and when asked to stop."""
    folder = course.folder.stage(stage.name)
    trainer.resume(folder)
    course.watch(StageStarted(stage.name, trainer.step))
    journal = Journal(folder / JOURNAL_FILE) if course.ranks.rank == 0 else None
    if journal is not None:
        journal.truncate_to(trainer.step)
    saver = _Saver(course, trainer, folder, journal)
    try:
        for event in trainer.run(folder):
            seen = _with_mfu(course, stage, event)
            if journal is not None:
                journal.append(seen)
                _track(course, journal, seen)
            course.watch(seen)
            if isinstance(event, StepMetrics):
                saver.after_step()
        saver.at_end()
    finally:
        if journal is not None:
            journal.close()


def _track(course: Course, journal: Journal, event: TrainEvent) -> None:
    alarm = course.tracker.log(event)
    if alarm is not None:
        journal.append(alarm)
        course.watch(alarm)


def _with_mfu(course: Course, stage: Stage, event: TrainEvent) -> TrainEvent:
    if not isinstance(event, StepMetrics):
        return event
    flops = course.recipe.model.training_flops_per_token(stage.context)
    return replace(event, mfu=mfu(event.tok_s, flops, course.peak, course.ranks.size))


class _Saver:
    """Saves every so many seconds, at the end of the stage, and before stopping.

    The processes of a run must save at the same step: the first one's clock and wish decide.
    """

    def __init__(
        self, course: Course, trainer: Trainer, folder: Path, journal: Journal | None
    ) -> None:
        self._course, self._trainer, self._folder = course, trainer, folder
        self._journal = journal
        self._saved_at, self._saved_step = time.monotonic(), -1

    def after_step(self) -> None:
        """Save if it is time.

        Raises:
            Stopped: after saving, if the user asked to stop.
        """
        waited = time.monotonic() - self._saved_at
        due = waited >= self._course.recipe.run.save_every_seconds
        due, stopping = self._course.ranks.decided(due, self._course.stopping())
        is_last = self._trainer.step >= self._trainer.stage.steps
        if due or stopping or is_last:
            self._save()
        if stopping and not is_last:
            raise Stopped

    def at_end(self) -> None:
        """Save what the last steps left, if the very last one was refused."""
        if self._saved_step != self._trainer.step:
            self._save()
        self._trainer.finish(self._folder)

    def _save(self) -> None:
        started = time.monotonic()
        if self._journal is not None:
            self._journal.flush()  # a state must not outlive the lines that led to it
        self._trainer.save(self._folder)
        self._saved_at, self._saved_step = time.monotonic(), self._trainer.step
        name = self._trainer.stage.name
        self._course.watch(Saved(name, self._saved_step, self._saved_at - started))
