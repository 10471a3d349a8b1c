"""FSDP2 and expert parallelism around a single-device model.

Weights, gradients and moments of every parameter are spread over all ranks: what is shared by
all over N, an expert over the replicas of its part. A layer's weights are put together for its
forward and backward pass and given up again. Gradients are summed, not averaged: the loop
divides each rank's loss by the learnt tokens of the whole step.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import Shard
from torch.nn.utils import parametrize

from mobilemoe.errors import MobileMoEError
from mobilemoe.model import MobileMoE, MoE, Routing
from mobilemoe.recipe import Run
from mobilemoe.train.parallel.exchange import parallelize_experts
from mobilemoe.train.parallel.ranks import Ranks

FLOAT32 = MixedPrecisionPolicy()
# Products read bfloat16 under autocast anyway: gathering it halves what is sent. Sums of
# gradients stay float32. Inputs are left alone: autocast casts what a product needs.
BFLOAT16 = MixedPrecisionPolicy(
    param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False
)


def prepare_model(model: MobileMoE, ranks: Ranks, run: Run) -> MobileMoE:
    """Move `model` to the device of this process and spread it over all ranks; returns it.

    All ranks must hold the same weights. Fake quantisation, if any, must be on before: the
    parameters are replaced, so the optimiser must be made after.

    Raises:
        MobileMoEError: if the experts cannot be dealt out evenly.
    """
    model.to(ranks.device)
    if ranks.all_mesh is None or ranks.expert_mesh is None:
        return model
    layers = [m for m in model.modules() if isinstance(m, MoE)]
    if ranks.expert_parallel > 1:
        for layer in layers:
            _keep_own_experts(layer, ranks)
            parallelize_experts(layer.experts, ranks.expert_mesh["ep"].get_group())
    is_rounded = any(parametrize.is_parametrized(module) for module in model.modules())
    # Rounding to INT4 must start from the same float32 values as in the file.
    policy = BFLOAT16 if run.precision == "bf16" and not is_rounded else FLOAT32
    apply_fsdp(model, ranks.all_mesh, ranks.expert_mesh, policy)
    return model


def apply_fsdp(
    model: MobileMoE, all_mesh: DeviceMesh, expert_mesh: DeviceMesh, policy: MixedPrecisionPolicy
) -> None:
    """Shard experts, routers, layers and the rest, in this order: an inner group comes first.

    Embedding, head and final norm, and the routers, are always gathered as float32 and stay
    whole from forward to backward: the loss reads the head after the forward pass.
    """
    for layer in model.model.layers:
        if isinstance(layer.feed_forward, MoE):
            _shard_moe(layer.feed_forward, all_mesh, expert_mesh, policy)
        fully_shard(layer, mesh=all_mesh, mp_policy=policy, shard_placement_fn=_axis(all_mesh))
    fully_shard(model, mesh=all_mesh, mp_policy=FLOAT32, reshard_after_forward=False)
    _own_output(model)
    register_fsdp_forward_method(model, "hidden")
    _adapt_hidden(model, policy)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)


class _Trace:
    """Collects routings, as a list would, but FSDP's hooks take lists apart and pass on copies."""

    def __init__(self, routings: list[Routing]) -> None:
        self.append = routings.append


def _own_output(model: MobileMoE) -> None:
    """Make `model.hidden` return no view, on which FSDP's hooks could be lost."""
    hidden = model.hidden

    def owned(*args: Any, **kwargs: Any) -> Tensor:
        h_BTD = hidden(*args, **kwargs)
        return h_BTD if h_BTD._base is None else h_BTD.clone()

    model.hidden = owned  # type: ignore[method-assign]


def _adapt_hidden(model: MobileMoE, policy: MixedPrecisionPolicy) -> None:
    """Make `model.hidden` read the newest weights and fill the caller's `trace`, not a copy.

    What stays whole after a forward pass is given up by the backward pass only. After a pass
    without one, an update of the weights would not be seen. Weights that are gathered as
    bfloat16 need autocast, which evaluation does not switch on.
    """
    hidden, dtype = model.hidden, policy.param_dtype
    whole = [model, *(m.router for m in model.modules() if isinstance(m, MoE))]

    def adapted(
        ids_BT: Tensor,
        *,
        capacity_factor: float | None = None,
        trace: list[Routing] | None = None,
    ) -> Tensor:
        for module in whole:
            cast(FSDPModule, module).reshard()
        opaque = None if trace is None else cast(list[Routing], _Trace(trace))
        with nullcontext() if dtype is None else torch.autocast(ids_BT.device.type, dtype):
            return hidden(ids_BT, capacity_factor=capacity_factor, trace=opaque)

    model.hidden = adapted  # type: ignore[method-assign]


def _shard_moe(
    moe: MoE, all_mesh: DeviceMesh, expert_mesh: DeviceMesh, policy: MixedPrecisionPolicy
) -> None:
    if expert_mesh.size(0) > 1:
        replicas = expert_mesh["replica"]
        fully_shard(
            moe.experts, mesh=replicas, mp_policy=policy, shard_placement_fn=_axis(replicas)
        )
    fully_shard(moe.router, mesh=all_mesh, mp_policy=FLOAT32, reshard_after_forward=False)
    moe.register_forward_pre_hook(_gather_router)


def _gather_router(module: nn.Module, args: object) -> None:
    """Routing reads the router's weight and never calls the module, so its own hook is idle."""
    cast(FSDPModule, cast(MoE, module).router).unshard()


def _axis(mesh: DeviceMesh) -> Callable[[nn.Parameter], Shard | None]:
    """Cut experts along E if that divides evenly, else along another axis.

    Experts are few and ranks many: cutting E would leave most ranks with nothing but padding.
    The third axis is the last resort.
    """
    ranks = mesh.size()

    def axis(parameter: nn.Parameter) -> Shard | None:
        if parameter.dim() != 3 or parameter.shape[0] % ranks == 0:
            return None
        return next((Shard(i) for i in (1, 2) if parameter.shape[i] % ranks == 0), None)

    return axis


def _keep_own_experts(moe: MoE, ranks: Ranks) -> None:
    """Replace the experts' weights [E, ...] by this rank's [E / P, ...]."""
    count, parts = moe.config.num_local_experts, ranks.expert_parallel
    if count % parts:
        raise MobileMoEError(
            f"{count} experts cannot be shared by {parts} ranks (parallel.expert_parallel); "
            f"allowed: divisors of {count}",
            hint=f"--set parallel.expert_parallel={_nearest_divisor(count, parts)}",
        )
    own = slice(ranks.part * count // parts, (ranks.part + 1) * count // parts)
    for module in moe.experts.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(parameter.detach()[own].clone()))


def _nearest_divisor(count: int, limit: int) -> int:
    return max(n for n in range(1, limit + 1) if count % n == 0)
