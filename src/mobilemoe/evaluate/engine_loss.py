"""Held-out loss of a checkpoint on the native engine, to compare its modes and caches.

T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from mobilemoe.data import IGNORED, Batch
from mobilemoe.engine import Model
from mobilemoe.evaluate.heldout import HeldoutLoss


def engine_heldout_loss(model: Model, batches: Iterable[Batch]) -> HeldoutLoss:
    """Score `batches` row by row, each in a session of its own, as `heldout_loss` does in torch.

    Raises:
        MobileMoEError: for a row longer than the context.
    """
    sums: list[float] = []
    tokens: list[int] = []
    for batch in batches:
        for ids_T, targets_T in zip(batch.ids_BT, batch.targets_BT, strict=True):
            at_T = np.flatnonzero(targets_T != IGNORED)
            logits_TV = model.logits(ids_T)[at_T].astype(np.float64)
            largest_T = logits_TV.max(-1, initial=-np.inf)
            total_T = np.exp(logits_TV - largest_T[:, None]).sum(-1)
            chosen_T = logits_TV[np.arange(len(at_T)), targets_T[at_T]]
            sums.append(float((largest_T + np.log(total_T) - chosen_T).sum()))
            tokens.append(len(at_T))
    return HeldoutLoss(tuple(sums), tuple(tokens))
