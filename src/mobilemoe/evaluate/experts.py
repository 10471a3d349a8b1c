"""Which experts a domain uses, and how specialised that makes them.

L MoE layers, E experts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
import torch

from mobilemoe.data import Batch
from mobilemoe.model import MobileMoE, Routing

Float64 = npt.NDArray[np.float64]


@torch.no_grad()
def expert_share(model: MobileMoE, batches: Iterable[Batch]) -> Float64:
    """Return the share [L, E] of routed choices that each expert got; rows sum to 1."""
    counts_LE: Float64 = np.zeros(0)
    for batch in batches:
        trace: list[Routing] = []
        model.hidden(torch.from_numpy(batch.ids_BT), trace=trace)
        batch_LE = np.stack([r.tokens_per_expert_E.numpy() for r in trace]).astype(np.float64)
        counts_LE = batch_LE + counts_LE if counts_LE.size else batch_LE
    share_LE: Float64 = counts_LE / counts_LE.sum(axis=1, keepdims=True)
    return share_LE


def specialisation(share_LE: Mapping[str, Float64]) -> Float64:
    """Return per layer how much the expert tells about the domain, 0 to 1.

    It is the mutual information of expert and domain, all domains equally likely, divided by
    the entropy of the domain: 0 if all domains use the experts alike, 1 if no expert serves two.
    """
    joint_LDE = np.stack(list(share_LE.values()), axis=1) / len(share_LE)
    mixture_L1E = joint_LDE.sum(axis=1, keepdims=True)
    ratio = np.where(joint_LDE > 0, joint_LDE * len(share_LE) / np.maximum(mixture_L1E, 1e-300), 1)
    information_L: Float64 = (joint_LDE * np.log(ratio)).sum(axis=(1, 2)) / np.log(len(share_LE))
    return information_L


def effective_experts(share_LE: Float64) -> float:
    """Return exp(entropy) of the use, averaged over layers: E if all are used alike."""
    entropy_L = -(share_LE * np.log(np.maximum(share_LE, 1e-300))).sum(axis=1)
    return float(np.exp(entropy_L).mean())


def reading(share_LE: Mapping[str, Float64]) -> str:
    """Say in one sentence what the heat map shows."""
    information_L = specialisation(share_LE)
    layer = int(information_L.argmax())
    widest = max(share_LE, key=lambda domain: effective_experts(share_LE[domain]))
    used = ", ".join(f"{d} {effective_experts(share):.0f}" for d, share in share_LE.items())
    experts = next(iter(share_LE.values())).shape[1]
    return (
        f"The chosen expert tells {information_L.mean():.0%} of what there is to know about the "
        f"domain (most in layer {layer}: {information_L[layer]:.0%}); of {experts} experts "
        f"the domains effectively use {used}; {widest} the widest set."
    )
