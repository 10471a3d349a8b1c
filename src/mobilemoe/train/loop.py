"""The one training loop. A stage says what differs; everything else is the same for all four.

Per step: batch -> loss (cross-entropy + router z-loss) -> clipped gradient -> AdamW -> expert
bias update. A step that the guard refuses leaves the weights as they were.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from mobilemoe.data import Batch
from mobilemoe.errors import CheckpointError, MobileMoEError
from mobilemoe.model import MobileMoE
from mobilemoe.quant.fake import enable_fake_quant, float_weights
from mobilemoe.recipe import Optimizer, Stage
from mobilemoe.train.balance import BiasBalancer, worst_load
from mobilemoe.train.events import StepMetrics
from mobilemoe.train.gradients import Step, add_gradients
from mobilemoe.train.settings import Settings
from mobilemoe.train.state import load_state, save_state, take
from mobilemoe.train.world import Alone, World


class Trainer:
    """One stage's run over `model`: steps, saves, resumes.

    `batches(step)` must be a pure function of the step; in a world of several processes it
    gives this process's rows. The model's weights are trained in place; with `stage.fake_quant`
    the model stays fake-quantised afterwards.
    """

    def __init__(
        self,
        model: MobileMoE,
        stage: Stage,
        batches: Callable[[int], Batch],
        settings: Settings | None = None,
        world: World | None = None,
    ) -> None:
        self.settings, self.world = settings or Settings(), world or Alone()
        self.model, self.stage, self.batches = model.train(), stage, batches
        self.step = 0
        if stage.fake_quant:
            enable_fake_quant(model, model.config.weights())
        self._floats = float_weights(model, model.config.weights())
        self._trained = {n: t for n, t in self._floats.items() if t.requires_grad}
        self._optimizer = _adamw(self._trained, self.settings.optimizer)
        self._balancer = BiasBalancer(model, self.settings.routing.bias_update_rate)

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
        lr = self.stage.lr_at(self.step)
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        batch = self.batches(self.step)
        done = add_gradients(self.model, batch, self.stage, self.settings, self.world)
        grad_norm = torch.nn.utils.clip_grad_norm_(
            self._trained.values(), self.settings.optimizer.clip_norm
        )
        if not torch.isfinite(grad_norm):
            raise self._diverged(done.loss)
        self._optimizer.step()
        self._optimizer.zero_grad()
        with torch.no_grad():
            self._balancer.update(done.counts_LE)
        self.step += 1
        return self._metrics(done, lr, float(grad_norm), time.perf_counter() - started)

    def _metrics(self, done: Step, lr: float, grad_norm: float, seconds: float) -> StepMetrics:
        return StepMetrics(
            stage=self.stage.name,
            step=self.step,
            tokens_seen=self.step * self.stage.tokens_per_step,
            loss=done.loss,
            z_loss=done.z_loss,
            lr=lr,
            grad_norm=grad_norm,
            dropped_share=done.dropped_share,
            worst_load=worst_load(done.counts_LE),
            router_entropy=done.router_entropy,
            domain_loss=done.domain_loss,
            seconds=seconds,
            tok_s=self.stage.tokens_per_step / seconds,
        )

    def _diverged(self, loss: float) -> MobileMoEError:
        return MobileMoEError(
            f"{self.stage.name} step {self.step}: loss {loss}, the gradient is not finite",
            hint="lower the stage's lr; the last saved state is intact",
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


def _adamw(trained: dict[str, Tensor], constants: Optimizer) -> torch.optim.AdamW:
    """Matrices decay; norms do not."""
    matrices = [t for t in trained.values() if t.dim() >= 2]
    vectors = [t for t in trained.values() if t.dim() < 2]
    groups = [
        {"params": matrices, "weight_decay": constants.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    betas = (constants.beta1, constants.beta2)
    return torch.optim.AdamW(groups, betas=betas, eps=constants.eps, fused=True)
