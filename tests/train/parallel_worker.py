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
from mobilemoe.quant.fake import enable_fake_quant, float_weights
from mobilemoe.recipe import Parallel, Run, Stage
from mobilemoe.train import Settings
from mobilemoe.train.balance import BiasBalancer
from mobilemoe.train.gradients import add_gradients
from mobilemoe.train.parallel import (
    Ranks,
    clip_grad_norm,
    gather_full,
    load_distributed,
    prepare_model,
    save_distributed,
)

EIGHT = replace(TINY, num_local_experts=8)
ROWS, CONTEXT, CLIP_NORM = 4, 16, 0.5


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
    steps: int = 12


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
    Layout("dropping alone", 1, micro_batch_rows=1, capacity=1.0, steps=6),
    Layout("dropping, EP 2", 4, 2, capacity=1.0, steps=6),
)
ROUNDED = (
    Layout("rounded alone", 1, fake_quant=True, steps=4),
    Layout("rounded, EP 2", 4, 2, fake_quant=True, steps=4),
)
HALF = (
    Layout("bf16 alone", 1, precision="bf16", steps=4),
    Layout("bf16, EP 2", 4, 2, precision="bf16", steps=4),
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


def own_rows(step: int, ranks: Ranks) -> Batch:
    """Return this rank's rows of a step."""
    batch, rows = all_rows(step), ranks.rows(ROWS)
    span = slice(rows.start, rows.stop)
    return Batch(batch.ids_BT[span], batch.targets_BT[span], batch.domains[span])


class Training:
    """The steps of `train.loop` around a model that is spread over `ranks`."""

    def __init__(self, ranks: Ranks, layout: Layout, seed: int = 0) -> None:
        self.ranks, self.layout = ranks, layout
        run = Run(precision=layout.precision, micro_batch_rows=layout.micro_batch_rows)
        self.settings = Settings(run=run)
        self.stage: Stage = replace(
            stage(layout.steps, capacity=layout.capacity), batch_tokens=ROWS * CONTEXT
        )
        model = MobileMoE(EIGHT).init_weights(torch.Generator().manual_seed(seed))
        if layout.fake_quant:
            enable_fake_quant(model, EIGHT.weights())
        self.model = prepare_model(model.train(), ranks, run)
        self.floats = float_weights(self.model, EIGHT.weights())
        self.trained = {n: t for n, t in self.floats.items() if t.requires_grad}
        self.optimizer = torch.optim.AdamW(self.trained.values(), lr=3e-3, eps=1e-6, fused=True)
        self.balancer = BiasBalancer(self.model, 1e-3)
        self.step = 0

    def advance(self) -> tuple[float, float]:
        """Take one step; return its loss and gradient norm."""
        self.ranks.beat(self.step)
        batch = own_rows(self.step, self.ranks)
        done = add_gradients(self.model, batch, self.stage, self.settings, self.ranks)
        norm = clip_grad_norm(self.trained.values(), CLIP_NORM, self.ranks)
        self.optimizer.step()
        self.optimizer.zero_grad()
        with torch.no_grad():
            self.balancer.update(done.counts_LE)
        self.step += 1
        return done.loss, float(norm)

    def state(self) -> dict[str, Tensor]:
        """Return everything that a checkpoint holds, as this rank has it."""
        tensors = {f"weight.{name}": tensor for name, tensor in self.floats.items()}
        for name, tensor in self.trained.items():
            for key, value in self.optimizer.state[tensor].items():
                tensors[f"{key}.{name}"] = value
        return tensors | {f"bias.{i}": bias for i, bias in enumerate(self.balancer.bias)}

    def like(self) -> dict[str, Tensor]:
        """Return names, shapes and places of `state`, also before the first step."""
        tensors = {f"weight.{name}": tensor for name, tensor in self.floats.items()}
        for name, tensor in self.trained.items():
            tensors |= {f"exp_avg.{name}": tensor, f"exp_avg_sq.{name}": tensor}
            tensors[f"step.{name}"] = torch.zeros(())
        return tensors | {f"bias.{i}": bias for i, bias in enumerate(self.balancer.bias)}

    def save(self, folder: Path) -> None:
        """Write a checkpoint."""
        save_distributed(folder, self.state(), {"stage": "test", "step": self.step}, self.ranks)

    def resume(self, folder: Path) -> None:
        """Go on from the last checkpoint, if there is one."""
        found = load_distributed(folder, self.like(), self.ranks)
        if found is None:
            return
        tensors, progress = found
        with torch.no_grad():
            for name, tensor in self.floats.items():
                tensor.copy_(tensors[f"weight.{name}"])
        for name, tensor in self.trained.items():
            keys = ("step", "exp_avg", "exp_avg_sq")
            self.optimizer.state[tensor] = {key: tensors[f"{key}.{name}"] for key in keys}
        self.balancer.load([tensors[f"bias.{i}"] for i in range(len(self.balancer.bias))])
        self.step = int(progress["step"])


def join(rank: int, size: int, expert_parallel: int, port: str) -> Ranks:
    """Form a world of `size` ranks over `port`."""
    os.environ.update(
        RANK=str(rank), WORLD_SIZE=str(size), MASTER_ADDR="127.0.0.1", MASTER_PORT=port
    )
    return Ranks.from_environment(Parallel(expert_parallel, hang_timeout_s=60.0), "cpu")


def train(layout: Layout, rank: int, port: str, out: Path) -> None:
    """Train under one layout; rank 0 writes losses, norms and the whole state."""
    ranks = join(rank, layout.size, layout.expert_parallel, port)
    training = Training(ranks, layout)
    done = [training.advance() for _ in range(layout.steps)]
    if layout is SAVED:
        training.save(out)
    write_full(training, out / layout.name)
    if rank == 0:
        (out / f"{layout.name}.json").write_text(json.dumps(done))
    ranks.close()


def reload(layout: Layout, rank: int, port: str, out: Path) -> None:
    """Load the checkpoint of `SAVED` into another layout; rank 0 writes the whole state."""
    ranks = join(rank, layout.size, layout.expert_parallel, port)
    training = Training(ranks, layout, seed=1)
    training.resume(out)
    assert training.step == SAVED.steps
    write_full(training, out / layout.name)
    ranks.close()


def write_full(training: Training, path: Path) -> None:
    """Gather the state and write it on rank 0."""
    full = gather_full(training.state(), training.ranks)
    if training.ranks.rank == 0:
        tensors = {name: tensor.contiguous() for name, tensor in full.items()}
        save_file(tensors, path.with_name(f"{path.name}.safetensors"))


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
