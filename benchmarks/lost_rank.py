"""A rank that is killed, stopped or interrupted under torchrun: seconds until the job goes on.

    python benchmarks/lost_rank.py RECIPE.toml --out benchmarks/results/kill_resume.json

Two ranks train the first stage of RECIPE on this machine with every setting of the watchdog and of
torchrun at its default; only checkpoints are written every `SAVE_EVERY_S`, to have some. In the
middle of the stage rank 1 gets SIGKILL or SIGSTOP, or torchrun gets Ctrl-C (SIGINT). Measured from
the signal: when the ranks that were there are gone, when torchrun has started them anew or ended,
and when they train again; and which steps were lost.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kill_resume import BEGINS, keep

SAVE_EVERY_S = 2.0
STEPS_BEFORE = 40  # of the first stage when the signal comes, at least
POLL_S, LIMIT_S = 0.02, 240.0


@dataclass(frozen=True)
class Outcome:
    """Seconds since the signal, None for what did not happen; steps of the interrupted stage.

    `journal_s` is the training time between the checkpoint that was gone on from and the signal.
    """

    signal: str
    restarts: int
    status: int | None
    ranks_gone_s: float
    ended_s: float | None
    restarted_s: float | None
    training_s: float | None
    step: int
    resumed_step: int | None
    journal_s: float | None


class Job:
    """`torchrun --nproc-per-node 2 -m mobilemoe train RECIPE --stage STAGE --resume`."""

    def __init__(self, recipe: Path, out: Path, restarts: int, *settings: str) -> None:
        self.out, self.log = out, out.with_suffix(f".{restarts}.log")
        self.journal = out / "stages" / "pretrain" / "metrics.jsonl"
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
        command += [f"--max-restarts={restarts}", "--rdzv-backend=c10d"]
        command += ["--rdzv-endpoint=127.0.0.1:0", "-m", "mobilemoe", "train", str(recipe)]
        command += ["--out", str(out), "--stage", "pretrain", "--resume"]
        command += ["--set", f"run.save_every_seconds={SAVE_EVERY_S}"]
        command += [part for setting in settings for part in ("--set", setting)]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def ranks(self) -> dict[int, int]:
        """Return the processes of the ranks by their number."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                parent = folder.joinpath("stat").read_text().rpartition(")")[2].split()[1]
                if int(parent) != self.process.pid:
                    continue
                environment = folder.joinpath("environ").read_bytes().split(b"\0")
            except OSError:  # it has ended
                continue
            names = dict(entry.partition(b"=")[::2] for entry in environment)
            if b"RANK" in names:
                found[int(names[b"RANK"])] = int(folder.name)
        return found

    def steps(self) -> list[tuple[int, float]]:
        """Return step and time of every step that is in the journal."""
        if not self.journal.exists():
            return []
        lines = self.journal.read_text(encoding="utf-8").split("\n")[:-1]
        events = [json.loads(line) for line in lines]
        return [(e["step"], e["time"]) for e in events if e["event"] == "step"]

    def begun(self) -> list[int]:
        """Return the step at which each attempt began to train."""
        lines = self.log.read_text(encoding="utf-8").splitlines()
        said = [line for line in lines if line.startswith(BEGINS)]
        steps = [re.search(r"resumed at step ([\d,]+)", line) for line in said]
        return [int(step[1].replace(",", "")) if step else 0 for step in steps]


def wait_for(what: object, job: Job) -> float:
    """Return the time when `what()` is true.

    Raises:
        AssertionError: if it is not within `LIMIT_S`; with the log's end.
    """
    deadline = time.monotonic() + LIMIT_S
    while not what():  # type: ignore[operator]
        if time.monotonic() > deadline:
            raise AssertionError(job.log.read_text()[-4000:])
        time.sleep(POLL_S)
    return time.monotonic()


@contextmanager
def running(job: Job) -> Iterator[Job]:
    """Leave nothing behind, whatever happens."""
    try:
        yield job
    finally:
        for process in (*job.ranks().values(), job.process.pid):
            if job.process.poll() is None:
                os.kill(process, signal.SIGKILL)
        job.process.wait()


def suffer(job: Job, number: signal.Signals, restarts: int) -> Outcome:
    """Send the signal in the middle of the stage, and watch what becomes of the job."""
    began = len(job.begun())
    latest = job.journal.parent / "LATEST"
    wait_for(lambda: len(job.steps()) >= STEPS_BEFORE and latest.exists(), job)
    old = job.ranks()
    sent = time.monotonic()
    os.kill(job.process.pid if number is signal.SIGINT else old[1], number)
    step, seen_at = job.steps()[-1]
    times = dict(job.steps())
    gone = wait_for(lambda: not set(old.values()) & set(job.ranks().values()), job)
    if not restarts:
        ended = wait_for(lambda: job.process.poll() is not None, job)
        status = job.process.returncode
        return Outcome(
            number.name, 0, status, gone - sent, ended - sent, None, None, step, None, None
        )
    restarted = wait_for(lambda: len(job.ranks()) == len(old), job)
    training = wait_for(lambda: len(job.begun()) > began + 1, job)
    resumed = job.begun()[-1]
    return Outcome(
        signal=number.name,
        restarts=restarts,
        status=None,
        ranks_gone_s=gone - sent,
        ended_s=None,
        restarted_s=restarted - sent,
        training_s=training - sent,
        step=step,
        resumed_step=resumed,
        journal_s=seen_at - times[resumed],
    )


def lose_a_rank(
    recipe: Path, out: Path, number: signal.Signals, restarts: int, *settings: str
) -> Outcome:
    """Train in `out` until `number` is sent, and see what becomes of the job."""
    with running(Job(recipe, out, restarts, *settings)) as job:
        return suffer(job, number, restarts)


CASES = (
    (signal.SIGKILL, 1),
    (signal.SIGKILL, 0),
    (signal.SIGSTOP, 1),
    (signal.SIGSTOP, 0),
    (signal.SIGINT, 0),
)


def main() -> None:
    """Measure every case, write down, say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--case", type=int, action="append", choices=range(len(CASES)))
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    rows = measured(given.out)
    for case in given.case or range(len(CASES)):
        number, restarts = CASES[case]
        with tempfile.TemporaryDirectory() as home:
            row = asdict(
                lose_a_rank(given.recipe, Path(home) / "run", number, restarts, *given.set)
            )
        rows = [old for old in rows if (old["signal"], old["restarts"]) != (number.name, restarts)]
        rows.append(row)
        print(row, file=sys.stderr, flush=True)
        keep(given.out, "ranks", {"save_every_s": SAVE_EVERY_S, "rows": rows})
    print(json.dumps(rows))


def measured(path: Path) -> list[dict[str, Any]]:
    """Return the rows that are there: cases may be measured one by one."""
    results = json.loads(path.read_text()) if path.exists() else {}
    rows: list[dict[str, Any]] = results.get("ranks", {}).get("rows", [])
    return rows


if __name__ == "__main__":
    main()
