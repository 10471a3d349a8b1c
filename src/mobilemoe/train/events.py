"""What a training run says while it runs: plain values that are logged, shown and drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class StepMetrics:
    """What one optimiser step did.

    `tokens_seen` counts positions of this stage. `loss` is nats per learnt token, `domain_loss`
    the same by domain. `dropped_share` is the share of (token, expert) choices without a slot,
    `worst_load` the fullest expert as a multiple of its layer's mean, `router_entropy` the mean
    entropy of the normalised router scores as a share of log E (1: undecided). `seconds` is wall
    time, `tok_s` and `mfu` follow from it; `mfu` is None where the peak of the device is unknown.
    """

    stage: str
    step: int
    tokens_seen: int
    loss: float
    z_loss: float
    lr: float
    grad_norm: float
    dropped_share: float
    worst_load: float
    router_entropy: float
    domain_loss: Mapping[str, float]
    seconds: float
    tok_s: float
    mfu: float | None = None


@dataclass(frozen=True)
class ExpertLoads:
    """How many choices each expert of each layer got since the last such event."""

    stage: str
    step: int
    tokens_per_expert: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class StepSkipped:
    """A step whose gradient was thrown away: the weights are those of the step before.

    `rows` are the numbers of the step's rows in the mixture's endless sequence, `domains` where
    this process's rows come from. `loss` and `grad_norm` may be infinite or NaN; they are NaN for
    a step that was passed over without computing it.
    """

    stage: str
    step: int
    reason: str
    loss: float
    grad_norm: float
    rows: tuple[int, ...]
    domains: tuple[str, ...]


@dataclass(frozen=True)
class RolledBack:
    """The run went back to its last good checkpoint."""

    stage: str
    from_step: int
    to_step: int
    reason: str


@dataclass(frozen=True)
class Alarm:
    """Something is wrong and the run goes on: expert collapse, for example."""

    stage: str
    step: int
    kind: str
    message: str


TrainEvent = StepMetrics | ExpertLoads | StepSkipped | RolledBack | Alarm
