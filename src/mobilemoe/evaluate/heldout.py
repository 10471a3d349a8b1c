"""Held-out loss per domain, and the paired comparison of two models on the same tokens.

B batch, T tokens, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from mobilemoe.data import IGNORED, Batch
from mobilemoe.model import MobileMoE


@dataclass(frozen=True)
class HeldoutLoss:
    """Summed loss (nats) and scored tokens of every row of one domain's held-out part."""

    loss_sums: tuple[float, ...]
    tokens: tuple[int, ...]

    @property
    def mean(self) -> float:
        """Nats per scored token."""
        return sum(self.loss_sums) / max(1, sum(self.tokens))

    @property
    def perplexity(self) -> float:
        """exp(mean)."""
        return math.exp(self.mean)


@torch.no_grad()
def heldout_loss(model: MobileMoE, batches: Iterable[Batch]) -> HeldoutLoss:
    """Score `batches` with `model`, dropless, row by row."""
    was_training, device = model.training, next(model.parameters()).device
    model.eval()
    sums: list[float] = []
    tokens: list[int] = []
    for batch in batches:
        targets_BT = torch.from_numpy(batch.targets_BT)
        logits_BTV = model(torch.from_numpy(batch.ids_BT).to(device)).cpu()
        losses_BT = F.cross_entropy(
            logits_BTV.flatten(0, 1), targets_BT.flatten(), ignore_index=IGNORED, reduction="none"
        ).view_as(targets_BT)
        sums += losses_BT.double().sum(1).tolist()
        tokens += (targets_BT != IGNORED).sum(1).tolist()
    model.train(was_training)
    return HeldoutLoss(tuple(sums), tuple(tokens))


def mean_over_domains(losses: Mapping[str, HeldoutLoss]) -> float:
    """Return the mean of the domains' losses, each domain counting the same."""
    return sum(loss.mean for loss in losses.values()) / len(losses)


def paired_gap(
    losses: Mapping[str, HeldoutLoss], baseline: Mapping[str, HeldoutLoss], seed: int
) -> tuple[float, float, float]:
    """Return the gap of mean losses in nats and its 95 % interval: (gap, low, high).

    The interval is a paired bootstrap over rows: both models saw the same rows, so resampling
    rows together removes what is merely hard text.
    """
    generator = np.random.default_rng(seed)
    draws = np.zeros(1000)
    for domain, loss in losses.items():
        other = baseline[domain]
        assert loss.tokens == other.tokens, domain
        difference = np.subtract(loss.loss_sums, other.loss_sums)
        rows = generator.integers(0, len(difference), (len(draws), len(difference)))
        tokens = np.asarray(loss.tokens)[rows].sum(1)
        draws += difference[rows].sum(1) / np.maximum(1, tokens) / len(losses)
    low, high = np.quantile(draws, (0.025, 0.975))
    gap = mean_over_domains(losses) - mean_over_domains(baseline)
    return gap, float(low), float(high)


def perplexities(losses: Mapping[str, HeldoutLoss]) -> dict[str, float]:
    """Return perplexity per domain, and under "mean" exp of the mean over domains."""
    values = {domain: loss.perplexity for domain, loss in losses.items()}
    return values | {"mean": math.exp(mean_over_domains(losses))}


def relative_error(actual: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> float:
    """Return ||actual - expected|| / ||expected||."""
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


def row_cosines(a_TV: npt.NDArray[np.float32], b_TV: npt.NDArray[np.float32]) -> Sequence[float]:
    """Return the cosine between the logits of each position."""
    norms = np.linalg.norm(a_TV, axis=1) * np.linalg.norm(b_TV, axis=1)
    cosines: list[float] = ((a_TV * b_TV).sum(1) / norms).tolist()
    return cosines
