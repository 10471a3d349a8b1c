"""One run of a sweep: fresh weights, one stage of training, held-out loss; one row."""

from __future__ import annotations

import time
from statistics import fmean
from typing import Any

import torch

from mobilemoe.data import Dataset
from mobilemoe.evaluate.heldout import heldout_loss
from mobilemoe.model import MobileMoE
from mobilemoe.recipe import RoutingLosses
from mobilemoe.sweep.grid import RunSpec, SweepTraining
from mobilemoe.train import Settings, StepMetrics, Trainer

SCORE_ROWS = 8
LAST_STEPS = 50  # what describes routing at the end of a run is a mean over these
CURVE_POINTS = 100


def train_one(run: RunSpec, training: SweepTraining, dataset: Dataset) -> dict[str, Any]:
    """Train `run` from its seed and return its row; see `rows.read_rows` for the keys.

    The seed draws the weights and the order of the data. The loss is in nats per token on text
    that is never trained on, the domains weighted as in the training mixture.
    """
    config, stage = run.config(training), training.stage(run.tokens, run.size.lr)
    model = MobileMoE(config).init_weights(torch.Generator().manual_seed(run.seed))
    batches = dataset.mixture(stage.mixture, stage.context, stage.batch_size, run.seed)
    settings = Settings(routing=RoutingLosses(training.bias_update_rate, training.z_loss))
    started = time.perf_counter()
    trainer = Trainer(model, stage, batches.batch, settings)
    steps = [event for event in trainer.run() if isinstance(event, StepMetrics)]
    seconds = time.perf_counter() - started
    heldout = _heldout(model, training, dataset)
    trained = stage.steps * stage.tokens_per_step
    return {
        **_what(run, training),
        "tokens": trained,
        "training_flops": trained * config.training_flops_per_token(stage.context),
        "loss": sum(training.mixture[domain] * loss for domain, loss in heldout.items()),
        "heldout": heldout,
        "refused_steps": stage.steps - len(steps),
        **_routing(steps),
        "seconds": round(seconds, 1),
        "curve": [round(step.loss, 4) for step in steps[:: max(1, len(steps) // CURVE_POINTS)]],
    }


def _what(run: RunSpec, training: SweepTraining) -> dict[str, Any]:
    """Return what was trained."""
    config = run.config(training)
    routers = sum(weight.size for weight in config.weights() if weight.kind == "router")
    return {
        "size": run.size.name,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_hidden_layers,
        "expert_equivalents": run.experts.expert_equivalents,
        "granularity": run.experts.granularity,
        "shared_expert": run.experts.shared_expert,
        "seed": run.seed,
        "active_params": config.active_params,
        "total_params": config.total_params,
        "router_params": routers,
        "weight_bytes": config.weight_bytes("int4"),
    }


def _heldout(model: MobileMoE, training: SweepTraining, dataset: Dataset) -> dict[str, float]:
    losses = {}
    for domain in training.mixture:
        batches = dataset.heldout_batches(
            domain, training.context, SCORE_ROWS, training.heldout_tokens
        )
        losses[domain] = heldout_loss(model, batches).mean
    return losses


def _routing(steps: list[StepMetrics]) -> dict[str, float]:
    last = steps[-LAST_STEPS:]
    return {
        "worst_load": fmean(step.worst_load for step in last),
        "dropped_share": fmean(step.dropped_share for step in last),
        "router_entropy": fmean(step.router_entropy for step in last),
    }
