"""kill -9 at random moments of `mobilemoe train`, then --resume: what stays the same bit for bit.

    python benchmarks/kill_resume.py RECIPE.toml --out benchmarks/results/kill_resume.json

Runs RECIPE once to its end and once with so many kills in each of its stages, as a user would:
`python -m mobilemoe train RECIPE --resume` in a process of its own, killed (SIGKILL) after a
random time and started again. Most kills come up to `DELAY_S` after a process begins to train, the
others at any time since its start: while it imports, opens data, loads the state or scores
held-out text. The stages must be long enough: about a hundred steps of 15 ms for every eight kills.

Compared with the uninterrupted run: the state of every stage (weights, moments, biases, the guard's
memory, random state, position), every file of the checkpoints, the held-out losses, and the journal
of every step but for its clock: loss and gradient norm of each batch are those of the data in the
same order. The recipe that the tests use is `tests/pipeline/pipeline_support.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from mobilemoe.atomic import atomic_write
from mobilemoe.profile.machine import this_machine, versions
from mobilemoe.recipe import load_recipe
from mobilemoe.train import state_sha256
from mobilemoe.train.state import load_state

BEGINS = "▸ "
DELAY_S, STARTING_S = 0.4, 6.0
AT_ANY_TIME = 0.2  # so many kills do not wait for training to begin
CLOCK = {"time", "seconds", "tok_s", "mfu"}
NO_TENSORS = "no tensor has this prefix"


@dataclass(frozen=True)
class Kill:
    """Where a kill landed: the stage, its last step in the journal and in the saved state.

    `leftover` says whether it hit a save: a half-written state lies beside the whole one.
    """

    stage: str
    step: int
    saved_step: int
    leftover: bool


@dataclass(frozen=True)
class Killed:
    """A run that was killed again and again, and the names of what differs from the whole one."""

    kills: tuple[Kill, ...]
    different: tuple[str, ...]
    state_sha256: dict[str, str]


class Program:
    """`mobilemoe train RECIPE --out OUT --resume`, as often as it takes."""

    def __init__(self, recipe: Path, out: Path, settings: tuple[str, ...] = ()) -> None:
        self.out = out
        self.stages = [stage.name for stage in load_recipe(str(recipe)).stages]
        self._command = [sys.executable, "-m", "mobilemoe", "train", str(recipe)]
        self._command += ["--out", str(out), "--resume"]
        self._command += [part for setting in settings for part in ("--set", setting)]
        self._environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}

    def finish(self) -> None:
        """Run to the end.

        Raises:
            CalledProcessError: if the program fails.
        """
        subprocess.run(
            self._command, env=self._environment, check=True, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def kill(self, chance: random.Random, skip: frozenset[str] = frozenset()) -> Kill | None:
        """Start it and kill it; None if it came to its end first.

        Stages in `skip` have had enough kills: it is killed when a later one has begun.
        """
        any_time = self.stage not in skip and chance.random() < AT_ANY_TIME
        delay_s = chance.uniform(0, STARTING_S if any_time else DELAY_S)
        with subprocess.Popen(
            self._command,
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            if not any_time:
                wait_until_begun(process, skip)
            time.sleep(delay_s)
            process.kill()
        if process.returncode == 0:
            return None
        if process.returncode > 0:
            raise AssertionError(f"the program failed with status {process.returncode}")
        return self._landed()

    @property
    def stage(self) -> str | None:
        """The first stage that is not done; None after the last."""
        for name in self.stages:
            path = self.out / "stages" / name / "heldout.json"
            if not path.exists() or "after" not in json.loads(path.read_text()):
                return name
        return None

    def _landed(self) -> Kill | None:
        name = self.stage
        if name is None:
            return None
        folder = self.out / "stages" / name
        saved = load_state(folder, NO_TENSORS)
        journal = steps_of(folder / "metrics.jsonl")
        return Kill(
            stage=name,
            step=journal[-1]["step"] if journal else 0,
            saved_step=0 if saved is None else int(saved[1]["step"]),
            leftover=any(folder.glob(".*.tmp")),
        )


def wait_until_begun(process: subprocess.Popen[str], skip: frozenset[str]) -> None:
    """Return when the program says that it trains a stage that is not in `skip`, or ends."""
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(BEGINS) and line.removeprefix(BEGINS).split(":")[0] not in skip:
            return


def steps_of(path: Path) -> list[dict[str, Any]]:
    """Return the journal's events without what the clock says; half a last line is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    events = [json.loads(line) for line in lines]
    return [{name: event[name] for name in event.keys() - CLOCK} for event in events]


def fingerprint(out: Path, stages: list[str]) -> dict[str, str]:
    """Return a SHA-256 for everything that a finished run leaves, by name."""
    found = {f"state of {name}": state_sha256(out / "stages" / name) for name in stages}
    for name in stages:
        folder = out / "stages" / name
        lines = json.dumps(steps_of(folder / "metrics.jsonl"), sort_keys=True)
        found[f"journal of {name}"] = sha256(lines.encode()).hexdigest()
        found[f"held-out of {name}"] = sha256((folder / "heldout.json").read_bytes()).hexdigest()
    checkpoints = (out / "base", out / "sft", out / "model")
    for path in sorted(path for folder in checkpoints for path in folder.iterdir()):
        found[f"{path.parent.name}/{path.name}"] = sha256(path.read_bytes()).hexdigest()
    return found


def kill_and_compare(
    recipe: Path, home: Path, kills: int, settings: tuple[str, ...] = (), seed: int = 0
) -> Killed:
    """Carry `recipe` out in `home` without a kill, and with `kills` in each stage.

    Raises:
        AssertionError: if a stage was over before it had its kills, or the program failed.
    """
    whole = Program(recipe, home / "whole", settings)
    whole.finish()
    killed, chance = Program(recipe, home / "killed", settings), random.Random(seed)
    landed: list[Kill] = []
    while True:
        counts = Counter(kill.stage for kill in landed)
        enough = frozenset(name for name in killed.stages if counts[name] >= kills)
        if len(enough) == len(killed.stages):
            break
        kill = killed.kill(chance, enough)
        stage = killed.stages[-1] if kill is None else kill.stage
        short = [name for name in killed.stages[: killed.stages.index(stage)] if name not in enough]
        if kill is None or short:
            raise AssertionError(f"over before {kills} kills: {short or stage}; {counts}")
        landed.append(kill)
        print(len(landed), kill, file=sys.stderr, flush=True)
    killed.finish()
    expected = fingerprint(whole.out, whole.stages)
    found = fingerprint(killed.out, killed.stages)
    names = sorted(expected.keys() | found.keys())
    different = tuple(name for name in names if expected.get(name) != found.get(name))
    states = {name: found[f"state of {name}"] for name in killed.stages}
    return Killed(tuple(landed), different, states)


def keep(path: Path, key: str, result: dict[str, Any]) -> None:
    """Put `result` under `key` of the results in `path`, which others share."""
    results = json.loads(path.read_text()) if path.exists() else {"benchmark": "kill_resume"}
    stamp = {"date": time.strftime("%Y-%m-%d"), "machine": asdict(this_machine())}
    results[key] = stamp | {"versions": versions(("mobilemoe", "torch"))} | result
    atomic_write(path, json.dumps(results, indent=1) + "\n")


def main() -> None:
    """Kill, compare, write down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--kills", type=int, default=25, help="in each stage")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    settings = tuple(given.set)
    with tempfile.TemporaryDirectory() as home:
        result = kill_and_compare(given.recipe, Path(home), given.kills, settings, given.seed)
    recipe = load_recipe(str(given.recipe), settings)
    points = {
        stage.name: {
            "steps": stage.steps,
            "kills": [asdict(kill) for kill in result.kills if kill.stage == stage.name],
            "state_sha256": result.state_sha256[stage.name],
        }
        for stage in recipe.stages
    }
    summary = {
        "kills_per_stage": given.kills,
        "seed": given.seed,
        "settings": settings,
        "different_from_the_uninterrupted_run": list(result.different),
    }
    keep(given.out, "stages", summary | {"points": points})
    print(json.dumps(summary))
    sys.exit(bool(result.different))


if __name__ == "__main__":
    main()
