"""What the loop measures beside the loss: pure functions of what a step computed.

B rows, T tokens, E experts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def router_entropy(router_logits: Sequence[Tensor]) -> float:
    """Return how undecided the routers are: 1 if all experts score alike, 0 if one has all.

    `router_logits` holds [T, E] of each layer. The sigmoid scores of a token, divided by their
    sum, are its distribution; the result is the mean of its entropy over tokens and layers, as
    a share of log E. A dense model, or a single expert, has nothing to decide: 0.
    """
    entropies = [_entropy(logits_TE) for logits_TE in router_logits if logits_TE.shape[0]]
    return float(torch.stack(entropies).mean()) if entropies else 0.0


def _entropy(logits_TE: Tensor) -> Tensor:
    E = logits_TE.shape[-1]
    if E < 2:
        return logits_TE.new_zeros((), dtype=torch.float32)
    # log-sigmoid keeps scores that underflow apart, so that their sum cannot become zero
    log_scores_TE = torch.nn.functional.logsigmoid(logits_TE.detach().float())
    log_shares_TE = log_scores_TE.log_softmax(-1)
    return -(log_shares_TE.exp() * log_shares_TE).sum(-1).mean() / math.log(E)


def domain_sums(
    losses_BT: Tensor, learnt_BT: Tensor, domains: Sequence[str]
) -> dict[str, tuple[float, int]]:
    """Return each domain's summed loss and its number of learnt tokens.

    `losses_BT` are nats per position, `learnt_BT` says which of them count, `domains` names the
    domain of each row. Sums of micro-batches and of ranks add up; `domain_means` divides.

    Raises:
        ValueError: if there is not one domain for each row.
    """
    totals_B = torch.where(learnt_BT, losses_BT.detach(), 0.0).sum(-1, dtype=torch.float64)
    counts_B = learnt_BT.sum(-1)
    sums: dict[str, tuple[float, int]] = {}
    rows = zip(domains, totals_B.tolist(), counts_B.tolist(), strict=True)
    for domain, total, count in rows:
        old_total, old_count = sums.get(domain, (0.0, 0))
        sums[domain] = (old_total + total, old_count + count)
    return sums


def domain_means(sums: Mapping[str, tuple[float, int]]) -> dict[str, float]:
    """Return nats per learnt token of each domain; one without a learnt token is left out."""
    return {domain: total / count for domain, (total, count) in sorted(sums.items()) if count}


def domain_losses(losses_BT: Tensor, learnt_BT: Tensor, domains: Sequence[str]) -> dict[str, float]:
    """Return nats per learnt token by domain; see `domain_sums`."""
    return domain_means(domain_sums(losses_BT, learnt_BT, domains))


def mfu(tok_s: float, flops_per_token: float, peak: float | None, devices: int = 1) -> float | None:
    """Return the model FLOPs utilisation: the share of the devices' peak that training needs.

    `flops_per_token` is `ModelConfig.training_flops_per_token`, `peak` that of one device in
    FLOP/s (None where it is unknown: then so is the result). Defined in arXiv 2204.02311.
    """
    return None if not peak else tok_s * flops_per_token / (peak * devices)
