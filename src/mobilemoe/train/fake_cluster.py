"""The real sharding without the GPUs: one rank of a cluster on fake devices.

The model is built on PyTorch's meta device, which has shapes and no memory, and sharded with
`fully_shard` in a process group that exists in name only, so that one process sees what any
rank of hundreds would hold. AdamW takes one step to make its moments.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor import Shard as Cut

from mobilemoe.config import ModelConfig
from mobilemoe.errors import MobileMoEError
from mobilemoe.model import MobileMoE, MoE
from mobilemoe.plan.cluster import Layout, States
from mobilemoe.plan.cluster.shards import PARTS, expert_axis, part_of


def faked_states(config: ModelConfig, layout: Layout, rank: int = 0) -> States:
    """Return what rank `rank` holds of parameters, gradients and moments, by part of the model.

    Raises:
        MobileMoEError: if this process already is part of a distributed run.
    """
    with fake_ranks(rank, layout.gpus):
        model = shard_on_fake_devices(config, layout)
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
            source=f"fully_shard on fake devices (torch {torch.__version__}, rank {rank})",
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


def shard_on_fake_devices(config: ModelConfig, layout: Layout) -> MobileMoE:
    """Return the model of `config` as one rank of `layout` holds it; call inside `fake_ranks`."""
    mesh = init_device_mesh(
        "cpu",
        (layout.expert_copies, layout.expert_parallel),
        mesh_dim_names=("copies", "experts"),
    )
    everyone = init_device_mesh("cpu", (layout.gpus,))
    with torch.device("meta"):
        model = MobileMoE(config)
    for layer in model.model.layers:
        if isinstance(layer.feed_forward, MoE):
            _shard_experts(layer.feed_forward.experts, layout, mesh)
        fully_shard(layer, mesh=everyone)
    fully_shard(model, mesh=everyone)
    return model


def _shard_experts(experts: nn.Module, layout: Layout, mesh: DeviceMesh) -> None:
    """Keep E / EP experts, and cut those over the ranks that hold the same ones."""
    for name, whole_EXY in list(experts.named_parameters()):
        own = whole_EXY.shape[0] // layout.expert_parallel
        setattr(experts, name, nn.Parameter(whole_EXY[:own].detach().clone()))
    ranks = layout.expert_copies
    fully_shard(
        experts,
        mesh=mesh["copies"],
        shard_placement_fn=lambda weight: Cut(expert_axis(tuple(weight.shape), ranks)),
    )


def _local(tensor: Tensor | None) -> Tensor:
    assert isinstance(tensor, DTensor), "every parameter is sharded"
    return tensor.to_local()


def _bytes_by_part(config: ModelConfig, named: Iterable[tuple[str, Tensor]]) -> dict[str, int]:
    part = {weight.name: part_of(weight) for weight in config.weights()}
    sizes = [(part[name], tensor.numel() * tensor.element_size()) for name, tensor in named]
    present = {name for name, _ in sizes}
    return {
        name: sum(size for other, size in sizes if other == name)
        for name in PARTS
        if name in present
    }
