"""The one training loop. A stage says what differs; everything else is the same for all four.

Per step: batch -> loss (cross-entropy + router z-loss) -> clipped gradient -> AdamW -> expert
bias update. Not covered here: several devices, mixed precision, recovery from a diverged step.

B batch, T tokens, N = B T.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils import parametrize

from mobilemoe.data import Batch
from mobilemoe.errors import CheckpointError, MobileMoEError
from mobilemoe.model import MobileMoE, Routing
from mobilemoe.quant.fake import enable_fake_quant, float_weights
from mobilemoe.train.balance import BiasBalancer, dropped_share, worst_load
from mobilemoe.train.loss import cross_entropy, router_z_loss
from mobilemoe.train.stage import Stage
from mobilemoe.train.state import load_state, save_state, take

Z_LOSS = 1e-4  # arXiv 2605.27358
BETAS = (0.9, 0.95)  # our choice, as are weight decay and clipping
WEIGHT_DECAY = 0.1
CLIP_NORM = 1.0


@dataclass(frozen=True)
class StepMetrics:
    """What one optimiser step did; `seconds` is its wall time."""

    stage: str
    step: int
    tokens_seen: int
    loss: float
    z_loss: float
    lr: float
    grad_norm: float
    dropped_share: float
    worst_load: float
    seconds: float


class Trainer:
    """One stage's run over `model`: steps, saves, resumes.

    `batches(step)` must be a pure function of the step. The model's weights are trained in
    place; with `stage.fake_quant` the model stays fake-quantised afterwards.
    """

    def __init__(self, model: MobileMoE, stage: Stage, batches: Callable[[int], Batch]) -> None:
        self.model, self.stage, self.batches = model.train(), stage, batches
        self.step = 0
        if stage.fake_quant:
            enable_fake_quant(model, model.config.weights())
        self._floats = float_weights(model, model.config.weights())
        self._trained = {n: t for n, t in self._floats.items() if t.requires_grad}
        self._optimizer = torch.optim.AdamW(_groups(self._trained), betas=BETAS, fused=True)
        self._balancer = BiasBalancer(model)

    def run(self) -> Iterator[StepMetrics]:
        """Yield metrics after every remaining step.

        Raises:
            MobileMoEError: if the loss or the gradient stops being finite; the weights are
                still those of the step before.
        """
        while self.step < self.stage.steps:
            yield self._one_step()

    def _one_step(self) -> StepMetrics:
        started = time.perf_counter()
        lr = self.stage.lr(self.step)
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        loss, z_loss, trace = self._loss(self.batches(self.step))
        (loss + Z_LOSS * z_loss).backward()
        grad_norm = torch.nn.utils.clip_grad_norm_(self._trained.values(), CLIP_NORM)
        if not torch.isfinite(grad_norm):
            raise self._diverged(float(loss.detach()))
        self._optimizer.step()
        self._optimizer.zero_grad()
        with torch.no_grad():
            self._balancer.update(trace)
        self.step += 1
        return StepMetrics(
            stage=self.stage.name,
            step=self.step,
            tokens_seen=self.step * self.stage.tokens_per_step,
            loss=float(loss.detach()),
            z_loss=float(z_loss.detach()),
            lr=lr,
            grad_norm=float(grad_norm),
            dropped_share=dropped_share(trace),
            worst_load=worst_load(trace),
            seconds=time.perf_counter() - started,
        )

    def _loss(self, batch: Batch) -> tuple[Tensor, Tensor, list[Routing]]:
        trace: list[Routing] = []
        ids_BT = torch.from_numpy(batch.ids_BT)
        with parametrize.cached():  # fake quantisation rounds each weight once per step
            h_BTD = self.model.hidden(
                ids_BT, capacity_factor=self.stage.capacity_factor, trace=trace
            )
            targets_N = torch.from_numpy(batch.targets_BT).flatten()
            loss = cross_entropy(h_BTD.flatten(0, 1), self.model.head_weight, targets_N)
        return loss, router_z_loss(trace), trace

    def _diverged(self, loss: float) -> MobileMoEError:
        return MobileMoEError(
            f"{self.stage.name} step {self.step}: loss {loss}, the gradient is not finite",
            hint="lower the stage's peak_lr; the last saved state is intact",
        )

    def save(self, folder: Path) -> None:
        """Write everything needed to go on exactly here."""
        tensors = {f"weight.{name}": tensor for name, tensor in self._floats.items()}
        for name, tensor in self._trained.items():
            for key, value in self._optimizer.state[tensor].items():
                tensors[f"{key}.{name}"] = value
        for layer, bias_E in enumerate(self._balancer.bias):
            tensors[f"bias.{layer}"] = bias_E
        save_state(folder, tensors, {"stage": self.stage.name, "step": self.step})

    def resume(self, folder: Path) -> bool:
        """Go on from what `save` wrote to `folder`; False if there is nothing.

        Raises:
            CheckpointError: if the state is damaged or of another model.
        """
        saved = load_state(folder)
        if saved is None:
            return False
        tensors, progress = saved
        _copy_into(self._floats, tensors)
        biases = {str(i): bias for i, bias in enumerate(self._balancer.bias)}
        self._balancer.load(list(take(tensors, "bias.", biases).values()))
        self.step = int(progress["step"])
        if self.step:
            self._restore_moments(tensors)
        return True

    def _restore_moments(self, tensors: dict[str, Tensor]) -> None:
        for key in ("exp_avg", "exp_avg_sq"):
            for name, value in take(tensors, f"{key}.", self._trained).items():
                self._optimizer.state[self._trained[name]][key] = value.clone()
        for name, tensor in self._trained.items():
            self._optimizer.state[tensor]["step"] = tensors[f"step.{name}"].clone()


def load_weights(model: MobileMoE, folder: Path) -> MobileMoE:
    """Fill `model` with the float weights that a stage saved in `folder`; returns it.

    Raises:
        CheckpointError: if there is no state, or it is damaged or of another model.
    """
    saved = load_state(folder)
    if saved is None:
        raise CheckpointError(
            f"no training state in {folder}", hint="the stage before has not been trained"
        )
    _copy_into(float_weights(model, model.config.weights()), saved[0])
    return model


def _copy_into(floats: dict[str, Tensor], tensors: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, value in take(tensors, "weight.", floats).items():
            floats[name].copy_(value)


def _groups(trained: dict[str, Tensor]) -> list[dict[str, object]]:
    """Matrices decay; norms do not."""
    matrices = [t for t in trained.values() if t.dim() >= 2]
    vectors = [t for t in trained.values() if t.dim() < 2]
    return [
        {"params": matrices, "weight_decay": WEIGHT_DECAY},
        {"params": vectors, "weight_decay": 0.0},
    ]
