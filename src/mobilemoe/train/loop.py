"""The one training loop. A stage says what differs; everything else is the same for all four.

Per step: batch -> loss (cross-entropy + router z-loss) -> clipped gradient -> AdamW -> expert
bias update. A step that the guard refuses changes nothing but the position; after several in a
row the run goes back to its last checkpoint and leaves them out. L MoE layers, E experts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mobilemoe.data import Batch
from mobilemoe.errors import CheckpointError, MobileMoEError
from mobilemoe.model import MobileMoE
from mobilemoe.quant.fake import enable_fake_quant, float_weights
from mobilemoe.recipe import Stage
from mobilemoe.train.balance import BiasBalancer, fullest_expert, worst_load
from mobilemoe.train.detours import Detours
from mobilemoe.train.events import (
    Alarm,
    ExpertLoads,
    RolledBack,
    StepMetrics,
    StepSkipped,
    TrainEvent,
)
from mobilemoe.train.gradients import Step, add_gradients
from mobilemoe.train.guard import StepGuard
from mobilemoe.train.optimizer import adamw, optimizer_state
from mobilemoe.train.random_state import random_state, restore_random
from mobilemoe.train.settings import Settings
from mobilemoe.train.state import Progress, Store, load_state, take
from mobilemoe.train.world import Alone, World

# Load events: so many per stage, and never more often than every so many steps.
LOAD_EVENTS, LOAD_STEPS = 200, 10
COLLAPSE = "expert_collapse"


class Trainer:
    """One stage's run over `model`: steps, saves, resumes, goes back.

    `batches(step)` must be a pure function of the step; in a world of several processes it
    gives this process's rows. The model's weights are trained in place; with `stage.fake_quant`
    the model stays fake-quantised afterwards. `step` is the position: steps trained or left out.
    """

    def __init__(
        self,
        model: MobileMoE,
        stage: Stage,
        batches: Callable[[int], Batch],
        settings: Settings | None = None,
        world: World | None = None,
        store: Store | None = None,
    ) -> None:
        self.settings, self.world = settings or Settings(), world or Alone()
        self.model, self.stage, self.batches = model.train(), stage, batches
        self.step = 0
        if stage.fake_quant:
            enable_fake_quant(model, model.config.weights(), stage.int8_activations)
        self.world.prepare(model, self.settings.run)
        self._floats = float_weights(model, model.config.weights())
        self._trained = {n: t for n, t in self._floats.items() if t.requires_grad}
        constants = self.settings.optimizer
        self._optimizer = adamw(self._trained, constants)
        self._balancer = BiasBalancer(model, self.settings.routing.bias_update_rate)
        self._guard = StepGuard(self.settings.guard, model.config, constants.clip_norm)
        self._detours = Detours(self.settings.guard)
        self._loads_LE = self._balancer.no_loads()
        self._store = store or self.world.store()
        self._home: Path | None = None
        self._last_was_good = True

    def run(self, folder: Path | None = None) -> Iterator[TrainEvent]:
        """Yield what happens in every remaining step; `StepMetrics` or `StepSkipped` ends a step.

        `folder` is where `save` writes and what the run goes back to when steps are refused in a
        row; it is saved to at once if it was neither resumed from nor saved to.

        Raises:
            MobileMoEError: if too many steps in a row were refused and there is no `folder`, or
                going back did not help. The state in `folder` is intact.
        """
        if folder is not None and self._home != folder:
            self.save(folder)
        while self.step < self.stage.steps:
            if self._detours.passes_over(self.step):
                yield self._pass_over()
            else:
                yield from self._one_step()

    def _one_step(self) -> tuple[TrainEvent, ...]:
        started = time.perf_counter()
        self.world.beat(self.step)
        lr = self.stage.lr_at(self.step)
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        batch = self.batches(self.step)
        done = add_gradients(self.model, batch, self.stage, self.settings, self.world)
        clip_norm = self.settings.optimizer.clip_norm
        grad_norm = float(self.world.clip_grad_norm(self._trained.values(), clip_norm))
        reason = self._guard.verdict(done.loss, grad_norm)
        if reason is not None:
            return self._refuse(batch, done.loss, grad_norm, reason)
        self._optimizer.step()
        self._optimizer.zero_grad()
        with torch.no_grad():
            self._balancer.update(done.counts_LE)
        return self._accept(done, lr, grad_norm, started)

    def _accept(
        self, done: Step, lr: float, grad_norm: float, started: float
    ) -> tuple[TrainEvent, ...]:
        self._guard.accept(done.loss, grad_norm)
        self._detours.accept(self.step)
        self._last_was_good = True
        self.step += 1
        self._loads_LE += done.counts_LE
        metrics = self._metrics(done, lr, grad_norm, time.perf_counter() - started)
        return (*self._loads(), *self._alarms(done, metrics.worst_load), metrics)

    def _loads(self) -> Iterator[ExpertLoads]:
        """Yield the choices per expert since the last time, if it is time."""
        every = max(LOAD_STEPS, self.stage.steps // LOAD_EVENTS)
        if not self._loads_LE.numel() or (self.step % every and self.step != self.stage.steps):
            return
        loads = tuple(tuple(row) for row in self._loads_LE.tolist())
        self._loads_LE.zero_()
        yield ExpertLoads(self.stage.name, self.step, loads)

    def _alarms(self, done: Step, worst: float) -> Iterator[Alarm]:
        mean = self._guard.collapse(worst)
        if mean is not None:
            layer, expert = fullest_expert(done.counts_LE)
            message = (
                f"the fullest expert got {mean:.1f} times its layer's mean over the last "
                f"{self.settings.guard.window} steps (limit {self._guard.collapse_load:.1f}); "
                f"now it is expert {expert} of MoE layer {layer}"
            )
            yield Alarm(self.stage.name, self.step, COLLAPSE, message)

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

    def _refuse(
        self, batch: Batch, loss: float, grad_norm: float, reason: str
    ) -> tuple[TrainEvent, ...]:
        """Throw the gradient away; go back if that happened too often in a row."""
        self._optimizer.zero_grad()
        must_go_back = self._detours.refuse(self.step)
        skipped = self._skip(reason, loss, grad_norm, batch.domains)
        return (skipped, self._go_back(reason)) if must_go_back else (skipped,)

    def _pass_over(self) -> StepSkipped:
        domains = self.batches(self.step).domains
        return self._skip("passed over after going back", float("nan"), float("nan"), domains)

    def _skip(
        self, reason: str, loss: float, grad_norm: float, domains: tuple[str, ...]
    ) -> StepSkipped:
        size = self.stage.batch_size
        rows = tuple(range(self.step * size, (self.step + 1) * size))
        self._last_was_good = False
        self.step += 1
        return StepSkipped(
            self.stage.name, self.step, reason, loss, grad_norm, rows=rows, domains=domains
        )

    def _go_back(self, reason: str) -> RolledBack:
        """Restore the last checkpoint and note in it which steps to leave out."""
        folder, from_step = self._home, self.step
        detours = self._detours.state()
        if folder is None or self._detours.exhausted:
            raise self._lost(reason)
        self._restore(folder)
        self._detours.load(detours)
        self._detours.go_back(self.step)
        self._write(folder)
        return RolledBack(self.stage.name, from_step, self.step, reason)

    def _lost(self, reason: str) -> MobileMoEError:
        tried = f"after going back {self._detours.returns} times" if self._home else "no checkpoint"
        return MobileMoEError(
            f"{self.stage.name} step {self.step}: {self.settings.guard.max_skips} steps in a row "
            f"were refused, {tried}; the last: {reason}",
            hint="look at the skipped rows in the log; if the data is good, lower the stage's lr"
            + (f"; the state in {self._home} is intact" if self._home else ""),
        )

    def save(self, folder: Path) -> bool:
        """Write everything needed to go on exactly here, if the last step was good.

        Returns False, and writes nothing, after a step that was left out: the weights before
        trouble may be its cause, so the checkpoint to go back to stays. The end of the stage is
        always written.
        """
        if not self._last_was_good and self.step < self.stage.steps:
            return False
        self._write(folder)
        self._home = folder
        return True

    def finish(self, folder: Path) -> None:
        """Leave the state of the finished stage in `folder` as the one file others read."""
        self._store.finish(folder, self._tensors(), self._progress())

    def resume(self, folder: Path) -> bool:
        """Go on from what `save` wrote to `folder`; False if there is nothing.

        Torch's random state becomes that of the saved run.

        Raises:
            CheckpointError: if the state is damaged, of another model or of another stage.
        """
        if not self._restore(folder):
            return False
        self._home = folder
        return True

    def _write(self, folder: Path) -> None:
        tensors = self._tensors() | random_state(self.world.device)
        self._store.save(folder, tensors, self._progress())

    def _progress(self) -> Progress:
        return {
            "stage": self.stage.name,
            "step": self.step,
            "guard": self._guard.state(),
            "detours": self._detours.state(),
        }

    def _restore(self, folder: Path) -> bool:
        random = random_state(self.world.device)
        progress = self._store.load(folder, self._tensors() | random)
        if progress is None:
            return False
        self._check_stage(progress)
        restore_random(random, self.world.device)
        self._balancer.load(self._balancer.bias)
        self._guard.load(progress["guard"])
        self._detours.load(progress["detours"])
        self.step, self._last_was_good = int(progress["step"]), True
        return True

    def _check_stage(self, progress: dict[str, Any]) -> None:
        if progress["stage"] != self.stage.name:
            raise CheckpointError(
                f"training state of stage {progress['stage']!r}; expected {self.stage.name!r}",
                hint="every stage has a folder of its own",
            )

    def _tensors(self) -> dict[str, Tensor]:
        """Return the tensors that training changes, under the names of the checkpoint."""
        weights = {f"weight.{name}": tensor for name, tensor in self._floats.items()}
        biases = {f"bias.{layer}": bias_E for layer, bias_E in enumerate(self._balancer.bias)}
        moments = optimizer_state(self._optimizer, self._trained)
        return weights | moments | biases | {"loads": self._loads_LE}


def load_weights(model: MobileMoE, folder: Path) -> MobileMoE:
    """Fill `model` with the float weights that a stage saved in `folder`; returns it.

    Raises:
        CheckpointError: if there is no state, or it is damaged or of another model.
    """
    saved = load_state(folder, "weight.")
    if saved is None:
        raise CheckpointError(
            f"no training state in {folder}", hint="the stage before has not been trained"
        )
    floats = float_weights(model, model.config.weights())
    with torch.no_grad():
        for name, value in take(saved[0], "weight.", floats).items():
            floats[name].copy_(value)
    return model
