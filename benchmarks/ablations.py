"""What each choice of the mixture of experts is worth at small scale, over several seeds.

    python benchmarks/ablations.py --tokens 1000000 --out benchmarks/results/ablations.json

Every variant changes one thing of the base model (drop-and-pad with capacity 1.5, bias balancing,
z-loss, one shared expert) and keeps active and total parameters, tokens, data and schedule. Each
row is one training run: held-out loss per domain, the load of the fullest expert, dropped choices
and router entropy at its end. Rows that --out holds already are not run again, so a stopped sweep
goes on. Ends with one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from mobilemoe.atomic import atomic_write
from mobilemoe.config import ModelConfig
from mobilemoe.data import DOMAINS, Dataset, build_dataset
from mobilemoe.evaluate.heldout import heldout_loss
from mobilemoe.model import MobileMoE
from mobilemoe.profile.machine import this_machine, versions
from mobilemoe.recipe import RoutingLosses, Stage
from mobilemoe.train import Settings, StepMetrics, Trainer

HELDOUT_TOKENS = 24_576
LAST_STEPS = 50

BASE = replace(
    ModelConfig.preset("nano"),
    hidden_size=64,
    intermediate_size=32,
    intermediate_size_mlp=128,
    num_hidden_layers=3,
)
# Four routed experts take the place of the shared one: the same parameters, active and in all.
WITHOUT_SHARED = replace(BASE, intermediate_size_mlp=0, num_local_experts=64, num_experts_per_tok=8)
STAGE = Stage(
    name="pretrain",
    purpose="ablation",
    for_domains=DOMAINS,
    tokens=1_000_000,
    context=256,
    batch_tokens=2048,
    mixture={"code": 0.45, "knowledge": 0.35, "math": 0.2},
    lr=4e-3,
    schedule="cosine",
    warmup_steps=50,
    final_lr=0.1,
    capacity_factor=1.5,
)


@dataclass(frozen=True)
class Variant:
    """One change of the base; `says` is what it is compared for."""

    name: str
    says: str
    config: ModelConfig = BASE
    stage: Stage = STAGE
    routing: RoutingLosses = field(default_factory=RoutingLosses)


VARIANTS = (
    Variant("base", "drop-and-pad 1.5, bias balancing 1e-3, z-loss 1e-4, shared expert"),
    Variant("fast-balance", "bias update rate 1e-2", routing=RoutingLosses(1e-2, 1e-4)),
    Variant("no-balance", "no bias update", routing=RoutingLosses(0.0, 1e-4)),
    Variant("no-z-loss", "no router z-loss", routing=RoutingLosses(1e-3, 0.0)),
    Variant("no-shared", "64 routed experts, top-8, none shared", config=WITHOUT_SHARED),
    Variant("dropless", "no capacity limit", stage=replace(STAGE, capacity_factor=None)),
)


def train(variant: Variant, tokens: int, seed: int, dataset: Dataset) -> dict[str, Any]:
    """Train one variant with one seed and return its row."""
    stage = variant.stage.with_tokens(tokens)
    model = MobileMoE(variant.config).init_weights(torch.Generator().manual_seed(seed))
    mixture = dataset.mixture(stage.mixture, stage.context, stage.batch_size, seed)
    started = time.perf_counter()
    trainer = Trainer(model, stage, mixture.batch, Settings(routing=variant.routing))
    steps = [event for event in trainer.run() if isinstance(event, StepMetrics)]
    seconds = time.perf_counter() - started
    losses = {
        domain: heldout_loss(
            model, dataset.heldout_batches(domain, stage.context, 8, HELDOUT_TOKENS)
        ).mean
        for domain in DOMAINS
    }
    last = steps[-LAST_STEPS:]
    return {
        "variant": variant.name,
        "seed": seed,
        "tokens": tokens,
        "active_params": variant.config.active_params,
        "total_params": variant.config.total_params,
        "heldout": losses,
        "heldout_mean": mean(losses.values()),
        "worst_load": mean(step.worst_load for step in last),
        "dropped_share": mean(step.dropped_share for step in last),
        "dropped_share_all": mean(step.dropped_share for step in steps),
        "router_entropy": mean(step.router_entropy for step in last),
        "z_loss": mean(step.z_loss for step in last),
        "seconds": round(seconds, 1),
        "curve": [round(step.loss, 4) for step in steps[:: max(1, len(steps) // 100)]],
    }


def done_rows(path: Path | None, tokens: int) -> list[dict[str, Any]]:
    """Return the rows of an earlier start with the same tokens."""
    if path is None or not path.exists():
        return []
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    return [row for row in rows if row["tokens"] == tokens]


def document(rows: list[dict[str, Any]], dataset: Dataset) -> Mapping[str, Any]:
    """Return everything that is kept."""
    return {
        "benchmark": "ablations",
        "machine": asdict(this_machine()),
        "versions": versions(("mobilemoe", "torch", "tokenizers")),
        "threads": torch.get_num_threads(),
        "corpus_sha256": dataset.sha256,
        "variants": {variant.name: variant.says for variant in VARIANTS},
        "stage": asdict(STAGE),
        "rows": rows,
    }


def main() -> None:
    """Run what is missing and print the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=1_000_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", type=Path, default=Path("runs/ablations-data"))
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    dataset = build_dataset(arguments.data)
    rows = done_rows(arguments.out, arguments.tokens)
    known = {(row["variant"], row["seed"]) for row in rows}
    for seed in range(arguments.seeds):
        for variant in VARIANTS:
            if (variant.name, seed) in known:
                continue
            row = train(variant, arguments.tokens, seed, dataset)
            rows.append(row)
            print(
                f"{variant.name} seed {seed}: {row['heldout_mean']:.4f} in {row['seconds']} s",
                file=sys.stderr,
            )
            if arguments.out is not None:
                text = json.dumps(document(rows, dataset), indent=1) + "\n"
                atomic_write(arguments.out, text)
    print(json.dumps(document(rows, dataset)))


if __name__ == "__main__":
    main()
