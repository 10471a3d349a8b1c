"""The mixture of experts as four functions: route -> dispatch -> experts -> combine.

T tokens, D hidden, F routed expert width, E experts, K top-k, N computed choices (T K at most).
`naive.py` holds the same layer as one loop over tokens: the oracle of this file and of the
native kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobilemoe.config import ModelConfig
from mobilemoe.kernels import (
    choose_experts,
    combine_rows,
    gather_rows,
    runs_native,
    sort_by_expert,
    swiglu,
)
from mobilemoe.model.experts import experts


@dataclass(frozen=True)
class Routing:
    """What the router decided for T tokens."""

    topk_ids_TK: Tensor
    topk_weights_TK: Tensor
    router_logits_TE: Tensor
    tokens_per_expert_E: Tensor
    dropped: int = 0


@dataclass(frozen=True)
class Dispatch:
    """The choices that are computed, sorted by expert.

    `choices_N` indexes the flattened [T K] choices; expert e owns the next `counts[e]` of them.
    `dropped` counts the choices that found no slot.
    """

    choices_N: Tensor
    counts: tuple[int, ...]
    dropped: int


def route(h_TD: Tensor, router_ED: Tensor, expert_bias_E: Tensor, config: ModelConfig) -> Routing:
    """Choose K experts per token, in float32.

    The bias decides who is chosen and never enters the weights; ties go to the lower index.
    The weights of a token sum to `routed_scaling_factor`.
    """
    with torch.autocast(h_TD.device.type, enabled=False):  # it would make this product bfloat16
        router_logits_TE = h_TD.float() @ router_ED.float().T
    scores_TE = router_logits_TE.sigmoid()
    biased_TE = scores_TE.detach() + expert_bias_E
    K = config.num_experts_per_tok
    if runs_native(biased_TE):
        topk_ids_TK = choose_experts(biased_TE, K)
    else:
        topk_ids_TK = biased_TE.sort(dim=-1, descending=True, stable=True).indices[:, :K]
    chosen_TK = scores_TE.gather(1, topk_ids_TK)
    total_T1 = chosen_TK.sum(-1, keepdim=True) + 1e-20
    topk_weights_TK = chosen_TK / total_T1 * config.routed_scaling_factor
    tokens_per_expert_E = torch.bincount(topk_ids_TK.flatten(), minlength=config.num_local_experts)
    return Routing(topk_ids_TK, topk_weights_TK, router_logits_TE, tokens_per_expert_E)


def dispatch(routing: Routing, capacity: int | None) -> Dispatch:
    """Sort the choices by expert, stable in token order.

    With a `capacity` every expert takes its first `capacity` choices and drops the rest
    (drop-and-pad; the padding itself is left to kernels that need equal rows). None drops
    nothing (dropless).
    """
    ids_TK = routing.topk_ids_TK
    if ids_TK.device.type == "cpu":
        order_N = sort_by_expert(ids_TK, len(routing.tokens_per_expert_E))
    else:
        order_N = ids_TK.flatten().argsort(stable=True)
    counts_E = routing.tokens_per_expert_E
    if capacity is None:
        return Dispatch(order_N, tuple(counts_E.tolist()), 0)
    starts_E = counts_E.cumsum(0) - counts_E
    rank_N = torch.arange(order_N.numel(), device=order_N.device)
    rank_N = rank_N - starts_E.repeat_interleave(counts_E)
    kept_N = order_N[rank_N < capacity]
    counts = tuple(counts_E.clamp(max=capacity).tolist())
    return Dispatch(kept_N, counts, order_N.numel() - kept_N.numel())


def slots(choices_N: Tensor, T: int, K: int) -> Tensor:
    """Return where each of the T K choices lies among the computed ones; -1: dropped."""
    slots_TK = choices_N.new_full((T, K), -1)
    rows_N = torch.arange(len(choices_N), device=choices_N.device)
    slots_TK.view(-1).scatter_(0, choices_N, rows_N)
    return slots_TK


def gather(h_TD: Tensor, choices_N: Tensor, K: int) -> Tensor:
    """Return [N, D]: the row of its token for each computed choice."""
    if runs_native(h_TD):
        return gather_rows(h_TD, choices_N, slots(choices_N, len(h_TD), K))
    return h_TD.index_select(0, choices_N // K)


def combine(y_ND: Tensor, choices_N: Tensor, topk_weights_TK: Tensor) -> Tensor:
    """Sum each token's expert outputs with its weights; a dropped choice adds nothing."""
    T, K = topk_weights_TK.shape
    if runs_native(y_ND, topk_weights_TK):
        return combine_rows(y_ND, slots(choices_N, T, K), topk_weights_TK)
    y_choices = y_ND.new_zeros(T * K, y_ND.shape[-1]).index_copy(0, choices_N, y_ND)
    y_TKD = y_choices.view(T, K, -1)
    return torch.einsum("tkd,tk->td", y_TKD, topk_weights_TK.to(y_TKD.dtype))


class SwiGLU(nn.Module):
    """(silu(x G^T) * (x U^T)) Dn^T: the shared expert, and the FFN of a dense layer."""

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden, width, bias=False)
        self.up_proj = nn.Linear(hidden, width, bias=False)
        self.down_proj = nn.Linear(width, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map the last axis, of length `hidden`, onto itself."""
        gate, up = self.gate_proj(x), self.up_proj(x)
        a = swiglu(gate, up) if runs_native(gate, up) else F.silu(gate) * up
        y: Tensor = self.down_proj(a)
        return y


class Experts(nn.Module):
    """The routed experts, their weights laid out [E, in, out] as in the checkpoint.

    `compute` applies them as `experts` does; int8 fake quantisation puts its own there.
    """

    compute: Callable[[Tensor, tuple[int, ...], Tensor, Tensor], Tensor]

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        E, D, width = config.num_local_experts, config.hidden_size, config.intermediate_size
        self.gate_up_proj = nn.Parameter(torch.empty(E, D, 2 * width))
        self.down_proj = nn.Parameter(torch.empty(E, width, D))
        self.compute = experts

    def forward(self, x_ND: Tensor, counts: tuple[int, ...]) -> Tensor:
        """Return [N, D]: expert e computes the next `counts[e]` rows."""
        return self.compute(x_ND, counts, self.gate_up_proj, self.down_proj)


class MoE(nn.Module):
    """Routed experts plus the shared expert, which is added unscaled."""

    expert_bias: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.router = nn.Linear(config.hidden_size, config.num_local_experts, bias=False)
        self.register_buffer("expert_bias", torch.zeros(config.num_local_experts))
        self.experts = Experts(config)
        shared = config.intermediate_size_mlp
        self.shared_expert = SwiGLU(config.hidden_size, shared) if shared else None

    def forward(
        self,
        x_BTD: Tensor,
        capacity_factor: float | None = None,
        trace: list[Routing] | None = None,
    ) -> Tensor:
        """Return [B, T, D]; append this layer's routing to `trace`.

        `capacity_factor` c gives every expert c T K / E slots; None drops nothing.
        """
        h_TD = x_BTD.flatten(0, 1)
        routing = route(h_TD, self.router.weight, self.expert_bias, self.config)
        plan = dispatch(routing, self._capacity(h_TD.shape[0], capacity_factor))
        x_ND = gather(h_TD, plan.choices_N, self.config.num_experts_per_tok)
        y_ND = self.experts(x_ND, plan.counts)
        y_TD = combine(y_ND, plan.choices_N, routing.topk_weights_TK)
        if self.shared_expert is not None:
            y_TD = y_TD + self.shared_expert(h_TD)
        if trace is not None:
            trace.append(replace(routing, dropped=plan.dropped))
        return y_TD.view_as(x_BTD)

    def _capacity(self, tokens: int, capacity_factor: float | None) -> int | None:
        if capacity_factor is None:
            return None
        slots = tokens * self.config.num_experts_per_tok / self.config.num_local_experts
        return max(1, min(tokens, round(slots * capacity_factor)))
