"""One rank of the parallel tests: trains a tiny model under many layouts of ranks, one by one.

    python parallel_worker.py OUT PORT...

with RANK in the environment. Layout i uses the i-th port and the first `size` ranks; the others
wait for the next layout. Rank 0 writes what came out of each layout to OUT.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from train_support import TINY, stage

from mobilemoe.data import Batch
from mobilemoe.model import MobileMoE
from mobilemoe.recipe import Optimizer, Parallel, Run
from mobilemoe.train import Settings, StepMetrics, Trainer
from mobilemoe.train.parallel import Ranks, RankWorld

EIGHT = replace(TINY, num_local_experts=8)
ROWS, CONTEXT = 4, 16


@dataclass(frozen=True)
class Layout:
    """How many ranks, how many of them share experts, and what is trained."""

    name: str
    size: int
    expert_parallel: int = 1
    micro_batch_rows: int | None = None
    capacity: float | None = None
    fake_quant: bool = False
    precision: Literal["fp32", "bf16"] = "fp32"
    steps: int = 8


PLAIN = (
    Layout("alone", 1),
    Layout("alone in pieces", 1, micro_batch_rows=1),
    Layout("2 ranks", 2),
    Layout("2 ranks, EP 2", 2, 2),
    Layout("4 ranks", 4),
    Layout("4 ranks, EP 2", 4, 2),
    Layout("4 ranks, EP 4", 4, 4),
    Layout("2 ranks in pieces, EP 2", 2, 2, micro_batch_rows=1),
)
DROPPING = (
    Layout("dropping alone", 1, micro_batch_rows=1, capacity=1.0, steps=4),
    Layout("dropping, EP 2", 4, 2, capacity=1.0, steps=4),
)
ROUNDED = (
    Layout("rounded alone", 1, fake_quant=True, steps=3),
    Layout("rounded, EP 2", 4, 2, fake_quant=True, steps=3),
)
HALF = (
    Layout("bf16 alone", 1, precision="bf16", steps=3),
    Layout("bf16, EP 2", 4, 2, precision="bf16", steps=3),
)
LAYOUTS = PLAIN + DROPPING + ROUNDED + HALF
SAVED = Layout("saved by 4 ranks, EP 2", 4, 2, steps=3)
RELOADED = (
    Layout("loaded by 1 rank", 1),
    Layout("loaded by 2 ranks, EP 2", 2, 2),
    Layout("loaded by 4 ranks", 4),
    Layout("loaded by 4 ranks, EP 4", 4, 4),
)
PORTS = len(LAYOUTS) + 1 + len(RELOADED)


def all_rows(step: int) -> Batch:
    """Return a step's rows: counting up from a random id, some targets ignored."""
    generator = np.random.default_rng(step)
    starts = generator.integers(0, EIGHT.vocab_size, (ROWS, 1))
    ids_BT = (starts + np.arange(CONTEXT)) % EIGHT.vocab_size
    targets_BT = (ids_BT + 1) % EIGHT.vocab_size
    targets_BT[:, :2] = -100
    targets_BT[0, :9] = -100  # ranks learn unequal numbers of tokens
    return Batch(ids_BT, targets_BT, ("code",) * ROWS)


def trainer(ranks: Ranks, layout: Layout, seed: int = 0) -> Trainer:
    """Return the real trainer of a tiny model in the world of `ranks`."""
    rows = ranks.rows(ROWS)
    span = slice(rows.start, rows.stop)

    def own_rows(step: int) -> Batch:
        batch = all_rows(step)
        return Batch(batch.ids_BT[span], batch.targets_BT[span], batch.domains[span])

    kind = stage(layout.steps, capacity=layout.capacity, fake_quant=layout.fake_quant)
    kind = replace(kind, tokens=layout.steps * ROWS * CONTEXT, batch_tokens=ROWS * CONTEXT, lr=3e-3)
    run = Run(precision=layout.precision, micro_batch_rows=layout.micro_batch_rows)
    settings = Settings(optimizer=Optimizer(eps=1e-6, clip_norm=0.5), run=run)
    model = MobileMoE(EIGHT).init_weights(torch.Generator().manual_seed(seed))
    return Trainer(model, kind, own_rows, settings, RankWorld(ranks))


def join(rank: int, size: int, expert_parallel: int, port: str) -> Ranks:
    """Form a world of `size` ranks over `port`."""
    os.environ.update(
        RANK=str(rank), WORLD_SIZE=str(size), MASTER_ADDR="127.0.0.1", MASTER_PORT=port
    )
    return Ranks.from_environment(Parallel(expert_parallel, hang_timeout_s=60.0), "cpu")


def train(layout: Layout, rank: int, port: str, out: Path) -> None:
    """Train under one layout; rank 0 writes losses, norms, logits and the whole state."""
    ranks = join(rank, layout.size, layout.expert_parallel, port)
    job = trainer(ranks, layout)
    logits = [score(job)]
    done = [event for event in job.run() if isinstance(event, StepMetrics)]
    logits += [score(job)]
    if layout is SAVED:
        job.save(out)
    keep(job, out / layout.name)
    if rank == 0:
        curve = [(metrics.loss, metrics.grad_norm) for metrics in done]
        (out / layout.name / "curve.json").write_text(json.dumps(curve))
        write_logits(logits, out / layout.name)
    ranks.close()


def reload(layout: Layout, rank: int, port: str, out: Path) -> None:
    """Load the checkpoint of `SAVED` into another layout; rank 0 writes the whole state."""
    ranks = join(rank, layout.size, layout.expert_parallel, port)
    job = trainer(ranks, replace(layout, steps=SAVED.steps), seed=1)
    logits = [score(job)]  # gathers the weights that loading replaces
    assert job.resume(out)
    assert job.step == SAVED.steps
    logits += [score(job)]
    keep(job, out / layout.name)
    if rank == 0:
        write_logits(logits, out / layout.name)
    ranks.close()


@torch.no_grad()
def score(job: Trainer) -> Tensor:
    """Return the logits of some rows, as an evaluation between steps gets them."""
    logits: Tensor = job.model(torch.from_numpy(all_rows(99).ids_BT))
    return logits.float()


def write_logits(logits: list[Tensor], folder: Path) -> None:
    """Write the logits of two evaluations."""
    save_file({"logits": torch.stack(logits)}, folder / "logits.safetensors")


def keep(job: Trainer, folder: Path) -> None:
    """Leave the state as one file."""
    job.save(folder)
    job.finish(folder)


def main() -> None:
    """Go through all layouts."""
    out, ports = Path(sys.argv[1]), sys.argv[2:]
    rank = int(os.environ["RANK"])
    torch.set_num_threads(1)
    jobs = [(layout, train) for layout in (*LAYOUTS, SAVED)]
    jobs += [(layout, reload) for layout in RELOADED]
    for (layout, job), port in zip(jobs, ports, strict=True):
        if rank < layout.size:
            job(layout, rank, port, out)


if __name__ == "__main__":
    main()
