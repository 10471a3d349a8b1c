"""One tensor, two views: what a rank holds, and its place in the whole model.

A parameter of FSDP knows its place among the ranks of its mesh. An expert's mesh is only the
replicas of its part, so it looks like a tensor of E / P experts; here it gets its place among
all E back. Everything else (moments follow their parameters) is already whole, or the same on
every rank.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard

from mobilemoe.train.parallel.ranks import Ranks


def whole_view(tensor: Tensor, ranks: Ranks) -> Tensor:
    """Return `tensor` with its place among all ranks; memory is shared."""
    mesh = ranks.expert_mesh
    if mesh is None or not isinstance(tensor, DTensor) or not _is_expert(tensor, ranks):
        return tensor.detach()
    shape = (tensor.shape[0] * ranks.expert_parallel, *tensor.shape[1:])
    return DTensor.from_local(
        tensor.to_local().detach(),
        mesh,
        (Shard(0), *tensor.placements),
        run_check=False,
        shape=torch.Size(shape),
        stride=tensor.stride(),
    )


def empty_view(tensor: Tensor, ranks: Ranks) -> Tensor:
    """Return a new `whole_view` of the same place, to be filled."""
    return torch.empty_like(whole_view(tensor, ranks))


def own_view(whole: Tensor, like: Tensor) -> Tensor:
    """Return a whole view as a tensor placed as `like`; the inverse of `whole_view`."""
    if not isinstance(like, DTensor) or not isinstance(whole, DTensor):
        return whole
    return DTensor.from_local(
        whole.to_local(),
        like.device_mesh,
        like.placements,
        run_check=False,
        shape=like.shape,
        stride=like.stride(),
    )


def gather_full(tensors: Mapping[str, Tensor], ranks: Ranks) -> dict[str, Tensor]:
    """Return the whole tensors on the CPU of rank 0, and nothing elsewhere.

    All ranks must call it with the same names. One tensor at a time is whole on the devices.
    """
    full: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        whole = _gathered(tensor.detach(), ranks)
        if ranks.rank == 0:
            full[name] = whole.cpu()
    return full


def _gathered(tensor: Tensor, ranks: Ranks) -> Tensor:
    if not isinstance(tensor, DTensor):
        return tensor
    part: Tensor = tensor.full_tensor()
    if ranks.expert_mesh is None or not _is_expert(tensor, ranks):
        return part
    parts = [torch.empty_like(part) for _ in range(ranks.expert_parallel)]
    dist.all_gather(parts, part.contiguous(), ranks.expert_mesh["ep"].get_group())
    return torch.cat(parts)


def _is_expert(tensor: DTensor, ranks: Ranks) -> bool:
    return ranks.expert_parallel > 1 and tensor.device_mesh.mesh_dim_names == ("replica",)
