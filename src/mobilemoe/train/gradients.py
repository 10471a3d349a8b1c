"""One step's gradient, in as many pieces as fit the device, and what it says of the step.

B batch, T tokens, N = B T, L MoE layers, E experts. The sum of the losses is divided by the
number of learnt tokens of the whole step, so pieces and devices change nothing but rounding
(and, with drop-and-pad, which choices find a slot: capacity is per piece).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import parametrize

from mobilemoe.data import IGNORED, Batch
from mobilemoe.model import MobileMoE, Routing
from mobilemoe.recipe import Stage
from mobilemoe.train.loss import TokenLosses, cross_entropy, router_z_loss
from mobilemoe.train.measures import domain_means, domain_sums, router_entropy
from mobilemoe.train.settings import Settings
from mobilemoe.train.world import World


@dataclass(frozen=True)
class Step:
    """Means over all learnt tokens of one step; `counts_LE` are its choices per expert."""

    loss: float
    z_loss: float
    router_entropy: float
    dropped_share: float
    domain_loss: dict[str, float]
    counts_LE: Tensor


def add_gradients(
    model: MobileMoE, batch: Batch, stage: Stage, settings: Settings, world: World
) -> Step:
    """Add the gradient of `batch`, this process's rows of the step, to the parameters."""
    sums = _Sums()
    learnt = int(world.total(torch.tensor(int((batch.targets_BT != IGNORED).sum()))))
    with _precision(settings, world):
        for part in _parts(batch, settings.run.micro_batch_rows):
            with parametrize.cached():  # fake quantisation rounds each weight once
                losses, trace = _losses(model, part, stage.capacity_factor, world.device)
                share = len(part.domains) / stage.batch_size
                z_loss = share * router_z_loss(trace)
                ((losses.total / max(1, learnt)) + settings.routing.z_loss * z_loss).backward()
            sums.add(part, losses, float(z_loss.detach()), trace, share)
    return sums.over(world, learnt)


def _losses(
    model: MobileMoE,
    batch: Batch,
    capacity_factor: float | None,
    device: torch.device,
) -> tuple[TokenLosses, tuple[Routing, ...]]:
    trace: list[Routing] = []
    ids_BT = torch.from_numpy(batch.ids_BT).to(device)
    targets_N = torch.from_numpy(batch.targets_BT).flatten().to(device)
    h_BTD = model.hidden(ids_BT, capacity_factor=capacity_factor, trace=trace)
    routings = tuple(trace)  # a checkpointed layer adds to the trace again in its backward pass
    return cross_entropy(h_BTD.flatten(0, 1), model.head_weight, targets_N), routings


def _precision(settings: Settings, world: World) -> AbstractContextManager[object]:
    if settings.run.precision == "fp32":
        return nullcontext()
    return torch.autocast(world.device.type, torch.bfloat16)


def _parts(batch: Batch, rows: int | None) -> Iterator[Batch]:
    size = rows or len(batch.domains)
    for start in range(0, len(batch.domains), size):
        span = slice(start, start + size)
        yield Batch(batch.ids_BT[span], batch.targets_BT[span], batch.domains[span])


class _Sums:
    """Adds up what the pieces of a step say."""

    def __init__(self) -> None:
        self._loss = self._z_loss = self._entropy = 0.0
        self._dropped = 0
        self._domains: dict[str, tuple[float, int]] = {}
        self._counts_LE = torch.zeros(0, 0, dtype=torch.long)

    def add(
        self,
        batch: Batch,
        losses: TokenLosses,
        z_loss: float,
        trace: Sequence[Routing],
        share: float,
    ) -> None:
        """Take in one piece, which has `share` of the step's rows."""
        self._z_loss += z_loss
        each_BT = losses.each_N.view(batch.ids_BT.shape).cpu()
        learnt_BT = torch.from_numpy(batch.targets_BT != IGNORED)
        for domain, (loss, learnt) in domain_sums(each_BT, learnt_BT, batch.domains).items():
            self._loss += loss
            old_loss, old_learnt = self._domains.get(domain, (0.0, 0))
            self._domains[domain] = (old_loss + loss, old_learnt + learnt)
        if trace:
            counts_LE = torch.stack([routing.tokens_per_expert_E for routing in trace])
            is_first = self._counts_LE.numel() == 0
            self._counts_LE = counts_LE if is_first else self._counts_LE + counts_LE
            self._dropped += sum(routing.dropped for routing in trace)
            self._entropy += share * router_entropy([r.router_logits_TE for r in trace])

    def over(self, world: World, learnt: int) -> Step:
        """Return the means over all processes."""
        counts_LE = world.total(self._counts_LE.to(world.device))
        scalars = np.array([self._loss, self._z_loss, self._entropy, float(self._dropped)])
        loss, z_loss, entropy, dropped = world.total(torch.from_numpy(scalars)).tolist()
        choices = float(counts_LE.sum())
        return Step(
            loss=loss / max(1, learnt),
            z_loss=z_loss,
            router_entropy=entropy,
            dropped_share=dropped / choices if choices else 0.0,
            domain_loss=domain_means(world.merged(self._domains)),
            counts_LE=counts_LE,
        )
