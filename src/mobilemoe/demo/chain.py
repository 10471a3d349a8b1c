"""The main job: budget -> architecture -> four stages -> INT4 -> measured on this machine.

Every part is saved when it is done, so a second start goes on where the first one stopped.
The run folder:

    run.json        what was asked for
    parts/          one JSON file per finished part
    data/           the tokenised corpus
    stages/NAME/    training state and metrics of one stage
    sft-bf16/ sft-int4/ control-bf16/ control-int4/ twin-int4/   checkpoints to compare with
    model/          the result: INT4, quantisation-aware trained
    report.html     and report.json
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from mobilemoe.atomic import atomic_write
from mobilemoe.config import ModelConfig
from mobilemoe.data import Dataset, build_dataset
from mobilemoe.demo import measure
from mobilemoe.demo.compose import compose_report, design_part
from mobilemoe.demo.events import Advanced, Finished, Scheduled, Started, Stopped, Watch
from mobilemoe.demo.export import export_forms
from mobilemoe.demo.page import write_report
from mobilemoe.demo.parts import Parts
from mobilemoe.demo.schedule import measured_speeds, remaining_tokens
from mobilemoe.demo.settings import Settings, stage_tokens
from mobilemoe.demo.stages import STARTS, demo_stages
from mobilemoe.demo.training import StageRun, run_stage
from mobilemoe.plan import Budget, design


@dataclass
class Chain:
    """One run in `folder`. `watch` sees events; `stopping` says when to save and stop."""

    settings: Settings
    folder: Path
    watch: Watch
    stopping: Callable[[], bool]
    _dataset: Dataset | None = field(init=False, default=None)
    _spent: float = field(init=False, default=0.0)

    def run(self) -> dict[str, Any]:
        """Do what is not done yet and return the report.

        Raises:
            Stopped: if `stopping()` became true; everything finished is saved.
            MobileMoEError: if a part fails; what was finished before is kept.
        """
        self.folder = claim_folder(self.folder, self.settings)
        self._spent = Parts(self.folder).seconds_spent()
        self._part("design", "budget -> architecture", self._design)
        self._part("data", "reading and tokenising this Python's own library", self._data)
        if self.settings.tokens is None:
            self._part("speed", "timing a few steps of each stage", self._speed)
        for name in STARTS:
            tokens = self._tokens(name)
            self._part(name, f"{tokens:,} tokens", partial(self._stage, name, tokens))
        self._part("export", "writing BF16 and INT4 files", self._export)
        self._part("evaluate", "held-out perplexity, experts, parity", self._evaluate)
        self._part("bench", "MoE and dense twin, rounds interleaved", self._bench)
        self._part("samples", "generating text", self._samples)
        return self._report()

    def _part(self, name: str, detail: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        if self.stopping():
            raise Stopped
        parts = Parts(self.folder)
        resumed = parts.read(name) is not None
        self.watch(Started(name, detail))
        value = parts.get(name, make)
        self.watch(Finished(name, str(value.get("summary", "")), resumed))
        return value

    @property
    def config(self) -> ModelConfig:
        """The designed architecture."""
        part = Parts(self.folder).read("design")
        assert part is not None
        return ModelConfig.from_dict(part["config"])

    @property
    def dataset(self) -> Dataset:
        """The corpus, from the cache after the first time."""
        if self._dataset is None:

            def progress(stage: str, done: int, total: int) -> None:
                self.watch(Advanced("data", done, total))

            self._dataset = build_dataset(self.folder / "data", progress=progress)
        return self._dataset

    def _design(self) -> dict[str, Any]:
        budget = Budget()
        return design_part(budget, design(budget), self.settings.minutes)

    def _data(self) -> dict[str, Any]:
        return measure.data_part(self.dataset)

    def _tokens(self, name: str) -> int:
        """Decide, once and for all, how many tokens stage `name` trains on."""
        parts = Parts(self.folder)
        if self.settings.tokens is not None:
            plan = stage_tokens(self.settings.tokens)
        else:
            speed = parts.read("speed") or {}
            done = {stage: part for stage in STARTS if (part := parts.read(stage))}
            finished = {stage: part["tok_s"] for stage, part in done.items()}
            plan = remaining_tokens(self._seconds_left(), speed["tok_s"], finished)
            plan |= {stage: part["tokens"] for stage, part in done.items()}
            plan["control"] = plan["qat"]  # the comparison needs the same tokens
        plan[name] = parts.get(f"tokens-{name}", lambda: {"tokens": plan[name]})["tokens"]
        self.watch(Scheduled({stage: plan[stage] for stage in STARTS}))
        return int(plan[name])

    def _seconds_left(self) -> float:
        """Return what is left of the asked minutes, earlier starts of this run counted in."""
        return 60 * self.settings.minutes - self._spent - (time.time() - self.settings.started_at)

    def _speed(self) -> dict[str, Any]:
        return measured_speeds(demo_stages(), self.config, self.dataset)

    def _stage(self, name: str, tokens: int) -> dict[str, Any]:
        start = STARTS[name]
        run = StageRun(
            stage=demo_stages()[name].with_tokens(tokens),
            folder=self._stage_folder(name),
            start=self._stage_folder(start) if start else None,
            seed=self.settings.seed,
            heldout_tokens=self.settings.heldout_tokens // 3,
        )
        return run_stage(run, self.config, self.dataset, self.watch, self.stopping)

    def _stage_folder(self, name: str) -> Path:
        return self.folder / "stages" / name

    def _export(self) -> dict[str, Any]:
        tokenizer_json = self.dataset.tokenizer.to_str()
        return export_forms(self.folder, self.config, tokenizer_json, self.settings.seed)

    def _evaluate(self) -> dict[str, Any]:
        def progress(done: int, total: int) -> None:
            self.watch(Advanced("evaluate", done, total))

        return measure.evaluate_part(self.folder, self.dataset, self.settings, progress)

    def _bench(self) -> dict[str, Any]:
        def progress(done: int, total: int) -> None:
            self.watch(Advanced("bench", done, total))

        return measure.speed_part(self.folder, self.dataset, self.config, progress)

    def _samples(self) -> dict[str, Any]:
        return measure.samples_part(self.folder / "model")

    def _report(self) -> dict[str, Any]:
        asked = json.loads((self.folder / "run.json").read_text())
        parts = Parts(self.folder)
        names = ("design", "data", *STARTS, "export", "evaluate", "bench", "samples")
        finished = {name: parts.read(name) or {} for name in names}
        report = compose_report(
            finished, self.settings, asked["started"], total_seconds=parts.seconds_spent()
        )
        write_report(self.folder, report)
        return report


def claim_folder(folder: Path, settings: Settings) -> Path:
    """Make `folder` this run's; a run with other arguments is moved aside, never overwritten."""
    record = folder / "run.json"
    if record.exists():
        if json.loads(record.read_text())["identity"] == settings.identity:
            return folder
        folder.rename(_free_name(folder))
    started = datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="seconds")
    content = {"identity": settings.identity, "started": started}
    atomic_write(record, json.dumps(content) + "\n")
    return folder


def _free_name(folder: Path) -> Path:
    number = 1
    while (candidate := folder.with_name(f"{folder.name}.{number}")).exists():
        number += 1
    return candidate
