"""The mixture of experts as four functions: route -> dispatch -> experts -> combine.

T tokens, D hidden, F routed expert width, E experts, K top-k, C slots per expert.
`naive.py` holds the same layer as one loop over tokens: the oracle of this file and of the
native kernels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobilemoe.config import ModelConfig


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
    """Where every expert finds its tokens.

    `slots_EC` indexes the flattened [T K] choices; T K marks an empty slot. `dropped` counts
    the choices that found no slot.
    """

    slots_EC: Tensor
    dropped: int


def route(h_TD: Tensor, router_ED: Tensor, expert_bias_E: Tensor, config: ModelConfig) -> Routing:
    """Choose K experts per token, in float32.

    The bias decides who is chosen and never enters the weights; ties go to the lower index.
    The weights of a token sum to `routed_scaling_factor`.
    """
    router_logits_TE = h_TD.float() @ router_ED.float().T
    scores_TE = router_logits_TE.sigmoid()
    biased_TE = scores_TE.detach() + expert_bias_E
    K = config.num_experts_per_tok
    topk_ids_TK = biased_TE.sort(dim=-1, descending=True, stable=True).indices[:, :K]
    chosen_TK = scores_TE.gather(1, topk_ids_TK)
    total_T1 = chosen_TK.sum(-1, keepdim=True) + 1e-20
    topk_weights_TK = chosen_TK / total_T1 * config.routed_scaling_factor
    tokens_per_expert_E = torch.bincount(
        topk_ids_TK.flatten(), minlength=config.num_local_experts
    )
    return Routing(topk_ids_TK, topk_weights_TK, router_logits_TE, tokens_per_expert_E)


def dispatch(routing: Routing, capacity: int | None) -> Dispatch:
    """Sort the choices by expert into E rows of equal length.

    With a `capacity` an expert takes the first C choices and drops the others (drop-and-pad);
    with None a row is as long as the fullest expert needs (dropless).
    """
    counts_E = routing.tokens_per_expert_E
    order = routing.topk_ids_TK.flatten().argsort(stable=True)
    starts_E = counts_E.cumsum(0) - counts_E
    C = int(counts_E.max()) if capacity is None else capacity
    column_C = torch.arange(C, device=order.device)
    filled_EC = column_C < counts_E[:, None]
    position_EC = (starts_E[:, None] + column_C).clamp(max=order.numel() - 1)
    slots_EC = order[position_EC].masked_fill(~filled_EC, order.numel())
    return Dispatch(slots_EC, int((counts_E - C).clamp(min=0).sum()))


def experts(x_ECD: Tensor, gate_up_proj_EDF: Tensor, down_proj_EFD: Tensor) -> Tensor:
    """Apply (silu(x G) * (x U)) Dn of each expert to its row; gate_up is [E, D, 2F]."""
    gate_ECF, up_ECF = torch.bmm(x_ECD, gate_up_proj_EDF).chunk(2, dim=-1)
    return torch.bmm(F.silu(gate_ECF) * up_ECF, down_proj_EFD)


def combine(y_ECD: Tensor, slots_EC: Tensor, topk_weights_TK: Tensor) -> Tensor:
    """Sum each token's expert outputs with its weights; a dropped choice adds nothing."""
    T, K = topk_weights_TK.shape
    D = y_ECD.shape[-1]
    slots = slots_EC.flatten()
    y_choices = y_ECD.new_zeros(T * K + 1, D).index_copy(0, slots, y_ECD.flatten(0, 1))
    y_TKD = y_choices[: T * K].view(T, K, D)
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
        y: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return y


class Experts(nn.Module):
    """The routed experts' weights, laid out [E, in, out] as in the checkpoint."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        E, D, width = config.num_local_experts, config.hidden_size, config.intermediate_size
        self.gate_up_proj = nn.Parameter(torch.empty(E, D, 2 * width))
        self.down_proj = nn.Parameter(torch.empty(E, width, D))


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
        self, x_BTD: Tensor, capacity_factor: float | None = None, trace: list[Routing] | None = None
    ) -> Tensor:
        """Return [B, T, D]; append this layer's routing to `trace`.

        `capacity_factor` c gives every expert c T K / E slots; None drops nothing.
        """
        h_TD = x_BTD.flatten(0, 1)
        routing = route(h_TD, self.router.weight, self.expert_bias, self.config)
        plan = dispatch(routing, self._capacity(h_TD.shape[0], capacity_factor))
        token_EC = plan.slots_EC // self.config.num_experts_per_tok
        padded_TD = torch.cat((h_TD, h_TD.new_zeros(1, h_TD.shape[1])))
        y_ECD = experts(padded_TD[token_EC], self.experts.gate_up_proj, self.experts.down_proj)
        y_TD = combine(y_ECD, plan.slots_EC, routing.topk_weights_TK)
        if self.shared_expert is not None:
            y_TD = y_TD + self.shared_expert(h_TD)
        if trace is not None:
            trace.append(_with_dropped(routing, plan.dropped))
        return y_TD.view_as(x_BTD)

    def _capacity(self, tokens: int, capacity_factor: float | None) -> int | None:
        if capacity_factor is None:
            return None
        slots = tokens * self.config.num_experts_per_tok / self.config.num_local_experts
        return max(1, min(tokens, round(slots * capacity_factor)))


def _with_dropped(routing: Routing, dropped: int) -> Routing:
    return Routing(
        routing.topk_ids_TK,
        routing.topk_weights_TK,
        routing.router_logits_TE,
        routing.tokens_per_expert_E,
        dropped,
    )
