"""A process that trains tiny stages in children, kills them again and again, and reports.

Run as `crash_training.py FOLDER KILLS`; prints one JSON object per stage. It imports torch once
and forks: a child starts in milliseconds. Half of the children are killed from outside at a
random moment, half kill themselves at a random system call of a save or between two steps.
"""

from __future__ import annotations

import io
import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from poison import poison
from train_support import TINY

from mobilemoe.data import IGNORED, Batch, Mixture
from mobilemoe.data.tokens import ConversationSet
from mobilemoe.model import MobileMoE
from mobilemoe.recipe import Guard, Stage
from mobilemoe.train import Settings, StepMetrics, Trainer, state_sha256

STEPS, SAVE_EVERY = 60, 2
CONTEXT, ROWS = 12, 2
STEP = b"s"
STEP_SECONDS = 0.008  # about; kills from outside come so much after a step's beginning
SMALL = replace(TINY, hidden_size=32, head_dim=32, num_hidden_layers=1, num_local_experts=4)
POISONED = {5, 30, 31, 32, 33, 47}
SETTINGS = Settings(guard=Guard(window=8, max_skips=3))

BASE = Stage(
    name="pretrain",
    purpose="test",
    for_domains=("text",),
    tokens=STEPS * CONTEXT * ROWS,
    context=CONTEXT,
    batch_tokens=CONTEXT * ROWS,
    mixture={"text": 1.0},
    lr=3e-3,
    schedule="cosine",
    warmup_steps=4,
    final_lr=0.1,
    capacity_factor=1.0,
)
STAGES = {
    "pretrain": BASE,
    "midtrain": replace(BASE, name="midtrain", schedule="linear", final_lr=0.0),
    "sft": replace(BASE, name="sft", mixture={"chat": 1.0}, capacity_factor=None),
    "qat": replace(
        BASE,
        name="qat",
        mixture={"text": 0.5, "chat": 0.5},
        capacity_factor=None,
        fake_quant=True,
    ),
}


def mixture(stage: Stage) -> Mixture:
    """A token stream and conversations, both noise."""
    generator = np.random.default_rng(1)
    text = generator.integers(0, SMALL.vocab_size, 4000).astype(np.uint16)
    lengths = generator.integers(4, CONTEXT, 150)
    offsets = np.concatenate([[0], lengths.cumsum()])
    chat = ConversationSet(text[: offsets[-1]], offsets, lengths // 2)
    return Mixture({"text": text, "chat": chat}, stage.mixture, CONTEXT, ROWS, seed=3)


@dataclass
class Ticks:
    """Counts moments at which a child may die; tells the parent, or kills at one of them."""

    pipe: int
    deadly: int | None
    count: int = 0

    def __call__(self, kind: bytes = b".") -> None:
        """Note one moment: `STEP` when a step begins."""
        self.count += 1
        if self.count == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        os.write(self.pipe, kind)


def tick_at_system_calls(tick: Ticks) -> None:
    """Let `tick` see the moment before and after every system call of a save."""

    def around(name: str) -> None:
        real: Callable[..., object] = getattr(os, name)

        def call(*args: object, **kwargs: object) -> object:
            tick()
            result = real(*args, **kwargs)
            tick()
            return result

        setattr(os, name, call)

    class Raw(io.FileIO):
        def write(self, data: bytes) -> int:  # type: ignore[override]
            tick()
            return super().write(data)

    os.fdopen = lambda handle, mode: io.BufferedWriter(Raw(handle, mode))  # type: ignore[assignment]
    for name in ("fsync", "replace", "chmod"):
        around(name)


def train(stage: Stage, folder: Path, log: Path, tick: Ticks) -> None:
    """Go on with the stage to its end; save often; write down every batch."""
    torch.manual_seed(0)
    model = MobileMoE(SMALL).init_weights(torch.Generator().manual_seed(0))
    rows = mixture(stage)
    with log.open("a", buffering=1) as lines:

        def batches(step: int) -> Batch:
            """A batch of which torch's random state hides some targets."""
            tick(STEP)
            batch = rows.batch(step)
            hidden_BT = (torch.rand(ROWS, CONTEXT) < 0.2).numpy()
            hidden = replace(batch, targets_BT=np.where(hidden_BT, IGNORED, batch.targets_BT))
            digest = sha256(hidden.ids_BT.tobytes() + hidden.targets_BT.tobytes()).hexdigest()
            lines.write(f"{step} {digest}\n")
            return hidden

        trainer = Trainer(model, stage, batches, SETTINGS)
        poison(trainer, POISONED, "nan")
        trainer.resume(folder)
        lines.write(f"start {trainer.step}\n")
        for event in trainer.run(folder):
            if isinstance(event, StepMetrics) and event.step % SAVE_EVERY == 0:
                trainer.save(folder)


def child(stage: Stage, folder: Path, log: Path, tick: Ticks) -> None:
    """Train, and leave the process in any case."""
    try:
        torch.set_num_threads(1)
        tick_at_system_calls(tick)
        train(stage, folder, log, tick)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def run_child(
    stage: Stage,
    folder: Path,
    log: Path,
    deadly: int | None = None,
    fatal: tuple[int, float] | None = None,
) -> tuple[bool, int]:
    """Fork a trainer; return whether it was killed, and the number of ticks seen.

    It kills itself at tick `deadly`, or is killed in its step number `fatal[0]` (from its own
    start), `fatal[1]` seconds after the beginning.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        child(stage, folder, log, Ticks(writing, deadly))
    os.close(writing)
    ticks = steps = 0
    while seen := os.read(reading, 1):
        ticks, steps = ticks + 1, steps + (seen == STEP)
        if fatal is not None and steps == fatal[0]:
            time.sleep(fatal[1])
            os.kill(pid, signal.SIGKILL)
            break
    _, status = os.waitpid(pid, 0)
    os.close(reading)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    if not killed and status != 0:
        raise SystemExit(f"a child failed with status {status}")
    return killed, ticks


def killed_run(stage: Stage, home: Path, kills: int, ticks: int) -> dict[str, object]:
    """Kill `kills` times at random moments, then let the run end."""
    chance = random.Random(stage.name)
    folder, log, leftovers = home / "killed", home / "killed.log", 0
    interval = ticks * SAVE_EVERY // STEPS
    for number in range(kills):
        if number % 2:
            killed, _ = run_child(stage, folder, log, deadly=chance.randint(1, 2 * interval))
        else:
            moment = chance.randint(1, 2 * SAVE_EVERY), chance.random() * STEP_SECONDS
            killed, _ = run_child(stage, folder, log, fatal=moment)
        if not killed:
            raise SystemExit(f"{stage.name}: only {number} kills before the end")
        leftovers += any(folder.glob(".*.tmp"))
    run_child(stage, folder, log)
    return {"sha256": state_sha256(folder), "leftovers": leftovers}


def report(stage: Stage, home: Path, kills: int) -> dict[str, object]:
    """Train once without and once with kills."""
    home.mkdir()
    _, ticks = run_child(stage, home / "whole", home / "whole.log")
    whole = state_sha256(home / "whole")
    return {"stage": stage.name, "whole": whole, **killed_run(stage, home, kills, ticks)}


def warm_up() -> None:
    """Let torch load what it loads late, once, so that no child has to. No gradient is computed.

    After a backward pass a process must not be forked.
    """
    torch.set_num_threads(1)
    Trainer(MobileMoE(SMALL), BASE, mixture(BASE).batch)
    with torch.no_grad():
        MobileMoE(SMALL)(torch.zeros(1, CONTEXT, dtype=torch.long))


def main() -> None:
    """Go through all stages."""
    warm_up()
    home, kills = Path(sys.argv[1]), int(sys.argv[2])
    for name, stage in STAGES.items():
        print(json.dumps(report(stage, home / name, kills)), flush=True)


if __name__ == "__main__":
    main()
