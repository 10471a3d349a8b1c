"""From a recipe to a run on this machine: threads, devices, folder, data, then the stages."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path

import tokenizers
import torch

from mobilemoe.checkpoint.hub import fetch, is_hub_id
from mobilemoe.data import TrainingData, open_data
from mobilemoe.engine.threads import default_threads
from mobilemoe.errors import MobileMoEError
from mobilemoe.pipeline.events import DataReady, Prepared, Warned, Watch
from mobilemoe.pipeline.folder import RunFolder, claim
from mobilemoe.pipeline.run import RunResult, run_stages
from mobilemoe.pipeline.stage import Course
from mobilemoe.recipe import Recipe, dump_recipe
from mobilemoe.train.parallel import Ranks
from mobilemoe.train.peaks import peak_flops
from mobilemoe.train.preflight import check_run
from mobilemoe.train.trackers import NoTracker, Tracker, tracker

EMBEDDED = "embedded"


def carry_out(
    recipe: Recipe,
    out: Path,
    watch: Watch,
    stopping: Callable[[], bool],
    only: str | None = None,
    resume: bool = False,
) -> RunResult:
    """Do what `recipe` says in the folder `out`, or go on with what is there.

    Started by `torchrun`, all processes train one model together; they must see the same `out`.

    Raises:
        Stopped: if `stopping()` became true; everything is saved.
        MobileMoEError: if the folder is another run's, or anything of the run fails.
    """
    ranks = Ranks.from_environment(recipe.parallel, recipe.run.device)
    torch.set_num_threads(recipe.run.threads or default_threads())
    try:
        if ranks.rank == 0:
            for message in check_run(recipe, out):
                watch(Warned(message))
            claim(out, recipe, resume)
        ranks.wait()
        data = _data(recipe, RunFolder(out), ranks, watch)
        watch(DataReady(tuple(data.summary().lines())))
        course = Course(
            recipe=recipe,
            folder=RunFolder(out),
            data=data,
            ranks=ranks,
            watch=watch,
            stopping=stopping,
            tracker=_tracker(recipe, ranks),
            peak=peak_flops(ranks.device, recipe.run.precision),
        )
        try:
            return run_stages(course, only)
        finally:
            course.tracker.finish()
    finally:
        ranks.close()


def _tracker(recipe: Recipe, ranks: Ranks) -> Tracker:
    if ranks.rank != 0:
        return NoTracker()
    return tracker(recipe.run.tracker, recipe.name, tomllib.loads(dump_recipe(recipe)))


def _data(recipe: Recipe, folder: RunFolder, ranks: Ranks, watch: Watch) -> TrainingData:
    """Prepare the data once, by the first process; the others open what it made."""

    def progress(what: str, done: int, total: int) -> None:
        ranks.beat(0)
        watch(Prepared(what, done, total))

    own = None if recipe.tokenizer == EMBEDDED else read_tokenizer(recipe.tokenizer)
    if ranks.rank != 0:
        ranks.wait()
    data = open_data(recipe, folder.data, tokenizer=own, progress=progress)
    if ranks.rank == 0:
        ranks.wait()
    return data


def read_tokenizer(place: str) -> tokenizers.Tokenizer:
    """Return the tokenizer of a checkpoint folder or a model of the hub.

    Raises:
        MobileMoEError: if there is none.
    """
    folder = fetch(place, weights=False) if is_hub_id(place) else Path(place)
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise MobileMoEError(
            f"tokenizer is {place!r}, and there is no {path}",
            hint='give a folder with tokenizer.json, a hub id, or "embedded"',
        )
    return tokenizers.Tokenizer.from_file(str(path))
