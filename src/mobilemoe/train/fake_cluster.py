"""The real sharding without the GPUs: one rank of a cluster on fake devices.

The model is built on PyTorch's meta device, which has shapes and no memory, and spread by the
same `prepare_model` as in training, in a process group that exists in name only. So one process
sees what any rank of hundreds would hold. AdamW takes one step to make its moments.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from mobilemoe.config import ModelConfig
from mobilemoe.errors import MobileMoEError
from mobilemoe.model import MobileMoE
from mobilemoe.plan.cluster import Layout, States
from mobilemoe.plan.cluster.shards import PARTS, part_of
from mobilemoe.recipe import Run
from mobilemoe.train.parallel import Ranks, prepare_model


def faked_states(config: ModelConfig, layout: Layout, rank: int = 0) -> States:
    """Return what rank `rank` holds of parameters, gradients and moments, by part of the model.

    Raises:
        MobileMoEError: if this process already is part of a distributed run.
    """
    with fake_ranks(rank, layout.gpus):
        model = shard_on_fake_devices(config, layout, rank)
        named = [(name, _local(parameter)) for name, parameter in model.named_parameters()]
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        gradients = [(name, _local(p.grad)) for name, p in model.named_parameters()]
        optimizer = torch.optim.AdamW(model.parameters(), foreach=False)
        optimizer.step()
        moments = [
            (name, _local(optimizer.state[parameter][key]))
            for name, parameter in model.named_parameters()
            for key in ("exp_avg", "exp_avg_sq")
        ]
        return States(
            parameters=_bytes_by_part(config, named),
            gradients=_bytes_by_part(config, gradients),
            moments=_bytes_by_part(config, moments),
            source=f"training's own sharding on fake devices, rank {rank} of {layout.gpus}",
        )


@contextmanager
def fake_ranks(rank: int, size: int) -> Iterator[None]:
    """Make this process rank `rank` of `size` that nobody else is part of.

    Raises:
        MobileMoEError: if this process already is part of a distributed run.
    """
    # Registers the backend "fake"; kept by PyTorch for its own tests and for planners.
    from torch.testing._internal.distributed.fake_pg import FakeStore

    if dist.is_initialized():
        raise MobileMoEError(
            "fake devices: this process is part of a distributed run already",
            hint="plan without torchrun: mobilemoe train RECIPE --dry-run",
        )
    hook = sys.excepthook  # which PyTorch replaces by one that prints "[rank 0]" before all errors
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=size)
    try:
        yield
    finally:
        dist.destroy_process_group()
        sys.excepthook = hook


def shard_on_fake_devices(config: ModelConfig, layout: Layout, rank: int) -> MobileMoE:
    """Return the model of `config` as rank `rank` of `layout` holds it; call in `fake_ranks`."""
    ranks = Ranks(torch.device("meta"), layout.expert_parallel)
    ranks.rank, ranks.size = rank, layout.gpus
    if layout.gpus > 1:
        numbers = torch.arange(layout.gpus)
        parts = numbers.view(-1, layout.expert_parallel).T.contiguous()
        ranks.all_mesh = DeviceMesh("cpu", numbers, mesh_dim_names=("all",))
        ranks.expert_mesh = DeviceMesh("cpu", parts, mesh_dim_names=("ep", "replica"))
    with torch.device("meta"):
        model = MobileMoE(config)
    return prepare_model(model, ranks, Run(precision=layout.precision))


def _local(tensor: Tensor | None) -> Tensor:
    assert tensor is not None, "every parameter has a gradient"
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _bytes_by_part(config: ModelConfig, named: Iterable[tuple[str, Tensor]]) -> dict[str, int]:
    part = {weight.name: part_of(weight) for weight in config.weights()}
    sizes = [(part[name], tensor.numel() * tensor.element_size()) for name, tensor in named]
    present = {name for name, _ in sizes}
    return {
        name: sum(size for other, size in sizes if other == name)
        for name in PARTS
        if name in present
    }
