"""Expert parallelism: the experts of a layer live on P ranks, and tokens travel to them.

dispatch -> all-to-all -> this rank's experts -> all-to-all -> combine. Each rank routes its own
tokens, so decisions are those of the single-device layer; with drop-and-pad, capacity is per
rank: c T K / E slots for the T tokens of this rank, wherever the expert is. Every choice that
kept its slot is computed, whatever the other ranks send (the buffers are as long as needed).

N choices of this rank sorted by expert, M choices that its experts compute, D hidden, E experts,
L = E / P experts of one rank.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from mobilemoe.model.moe import Experts


class _AllToAll(torch.autograd.Function):
    """Send `send[p]` rows to rank p of the group and get `receive[p]` from it."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, send: list[int], receive: list[int], group: dist.ProcessGroup
    ) -> Tensor:
        ctx.splits = send, receive, group
        y = x.new_empty(sum(receive), *x.shape[1:])
        dist.all_to_all_single(y, x.contiguous(), receive, send, group)
        return y

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None]:
        send, receive, group = ctx.splits
        returned: Tensor = _AllToAll.apply(grad_outputs[0], receive, send, group)  # type: ignore[no-untyped-call]
        return returned, None, None, None


@dataclass(frozen=True)
class Journey:
    """How the choices of one layer travel: rows per rank, and the order in which experts go.

    `order_M` sorts what arrives (by sender, then expert) by expert, then sender: the order of
    the tokens in the whole step. `counts` are the rows of each local expert.
    """

    send: list[int]
    receive: list[int]
    order_M: Tensor
    counts: tuple[int, ...]
    group: dist.ProcessGroup

    def there(self, x_ND: Tensor) -> Tensor:
        """Return [M, D]: the rows of this rank's experts, sorted by expert."""
        arrived_MD: Tensor = _AllToAll.apply(x_ND, self.send, self.receive, self.group)  # type: ignore[no-untyped-call]
        return arrived_MD.index_select(0, self.order_M)

    def back(self, y_MD: Tensor) -> Tensor:
        """Return [N, D]: each choice's result where it came from."""
        ready_MD = torch.empty_like(y_MD).index_copy(0, self.order_M, y_MD)
        returned_ND: Tensor = _AllToAll.apply(ready_MD, self.receive, self.send, self.group)  # type: ignore[no-untyped-call]
        return returned_ND


def plan_journey(
    counts: tuple[int, ...], group: dist.ProcessGroup, device: torch.device
) -> Journey:
    """Tell the other ranks of `group` how many rows each of their experts gets from this one."""
    ranks = dist.get_world_size(group)
    sent_PL = torch.tensor(counts, device=device).view(ranks, -1)
    arriving_PL = torch.empty_like(sent_PL)
    dist.all_to_all_single(arriving_PL, sent_PL, group=group)
    arriving_PL = arriving_PL.cpu()
    local = arriving_PL.shape[1]
    expert_M = torch.arange(local).repeat(ranks).repeat_interleave(arriving_PL.flatten())
    return Journey(
        send=sent_PL.sum(1).tolist(),
        receive=arriving_PL.sum(1).tolist(),
        order_M=expert_M.argsort(stable=True).to(device),
        counts=tuple(arriving_PL.sum(0).tolist()),
        group=group,
    )


def parallelize_experts(experts: Experts, group: dist.ProcessGroup) -> None:
    """Make `experts`, whose weights are already this rank's part, compute for all of `group`."""

    def forward(self: Experts, x_ND: Tensor, counts: tuple[int, ...]) -> Tensor:
        journey = plan_journey(counts, group, x_ND.device)
        x_MD = journey.there(_as_computed(x_ND))
        y_MD = self.compute(x_MD, journey.counts, self.gate_up_proj, self.down_proj)
        return journey.back(y_MD)

    experts.forward = MethodType(forward, experts)  # type: ignore[method-assign]


def _as_computed(x_ND: Tensor) -> Tensor:
    """Send rows in the precision in which the experts' products will read them."""
    kind = x_ND.device.type
    return x_ND.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x_ND
