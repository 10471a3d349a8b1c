"""What one GPU sends per optimiser step, by kind, inside its node and to other nodes.

Gathers and reductions are counted as rings or trees that bring each byte into a node once:
of a gathered unit of B bytes on n ranks, g of them in this node, a GPU receives B (n - 1) / n,
of which B (n - g) / (n g) came over the network. A reduce-scatter is the same backwards, an
all-reduce both. In an all-to-all each of n ranks sends 1 / n of its rows to every other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mobilemoe.config import ModelConfig
from mobilemoe.plan.cluster.activations import INT64
from mobilemoe.plan.cluster.layout import WIDE_BYTES, Layout
from mobilemoe.plan.cluster.shards import Unit, units
from mobilemoe.recipe import Stage

GATHER, REDUCE = "weights: all-gather", "gradients: reduce-scatter"
DISPATCH, COUNTS = "tokens to experts: all-to-all", "expert counts: all-reduce"


@dataclass(frozen=True)
class Flow:
    """Bytes per GPU and optimiser step of one kind, in one direction.

    `node_bytes` stay inside the node, `network_bytes` cross its border; `calls` are collectives.
    """

    kind: str
    calls: int
    node_bytes: float
    network_bytes: float

    @property
    def total_bytes(self) -> float:
        """Bytes on either kind of link."""
        return self.node_bytes + self.network_bytes


@dataclass(frozen=True)
class _Group:
    """Ranks that talk to each other, and how many of them share a node."""

    ranks: int
    in_node: int


def flows(config: ModelConfig, layout: Layout, stage: Stage) -> tuple[Flow, ...]:
    """Return the traffic of one optimiser step of `stage`; empty on one GPU."""
    if layout.gpus == 1:
        return ()
    kinds = [_gathers(config, layout, stage), _reductions(config, layout, stage)]
    if layout.expert_parallel > 1:
        kinds.append(_dispatch(config, layout, stage))
    if config.is_moe:
        kinds.append(_counts(config, layout))
    return tuple(kinds)


def _groups(config: ModelConfig, layout: Layout) -> Iterator[tuple[Unit, _Group]]:
    node, ep = layout.node_gpus, layout.expert_parallel
    """Yield the units that more than one rank shares, with those ranks."""
    for unit in units(config, layout):
        if unit.ranks == 1:
            continue
        in_node = max(1, node // ep) if unit.is_experts else node
        yield unit, _Group(unit.ranks, in_node)


def _gathers(config: ModelConfig, layout: Layout, stage: Stage) -> Flow:
    """Gather what stays once per micro-batch, the rest once forwards and once backwards."""
    pieces = layout.micro_batches(stage)
    total = Flow(GATHER, 0, 0.0, 0.0)
    for unit, group in _groups(config, layout):
        size = WIDE_BYTES if unit.stays else layout.gathered_bytes(stage)
        times = pieces * (1 if unit.stays else 2)
        total = _plus(total, _ring(group, unit.padded_size * size), times)
    return total


def _reductions(config: ModelConfig, layout: Layout, stage: Stage) -> Flow:
    """Every unit once per micro-batch, in float32."""
    total = Flow(REDUCE, 0, 0.0, 0.0)
    for unit, group in _groups(config, layout):
        sent = _ring(group, unit.padded_size * WIDE_BYTES)
        total = _plus(total, sent, layout.micro_batches(stage))
    return total


def _ring(group: _Group, size: float) -> tuple[float, float]:
    """Return the bytes in the node and over the network of one gather of `size` bytes."""
    n, g = group.ranks, group.in_node
    received = size * (n - 1) / n
    network = size * (n - g) / (n * g)
    return received - network, network


def _dispatch(config: ModelConfig, layout: Layout, stage: Stage) -> Flow:
    """Rows to the experts and back, forwards and backwards; again where layers are recomputed.

    Only choices that kept their slot travel, no padding; none is counted as dropped.
    """
    ep, in_node = layout.expert_parallel, min(layout.expert_parallel, layout.node_gpus)
    rows = layout.rows_per_gpu(stage) * stage.context * config.num_experts_per_tok
    size = rows * config.hidden_size * layout.compute_bytes
    node, network = size * (in_node - 1) / ep, size * (ep - in_node) / ep
    layers = sum(config.is_moe_layer(i) for i in range(config.num_hidden_layers))
    times = layers * (6 if layout.activation_checkpointing else 4)
    calls = times * layout.micro_batches(stage)
    return Flow(DISPATCH, calls, times * node, times * network)


def _counts(config: ModelConfig, layout: Layout) -> Flow:
    layers = sum(config.is_moe_layer(i) for i in range(config.num_hidden_layers))
    group = _Group(layout.gpus, layout.node_gpus)
    node, network = _ring(group, layers * config.num_local_experts * INT64)
    return Flow(COUNTS, 1, 2 * node, 2 * network)


def _plus(flow: Flow, sent: tuple[float, float], times: int) -> Flow:
    node, network = flow.node_bytes + times * sent[0], flow.network_bytes + times * sent[1]
    return Flow(flow.kind, flow.calls + times, node, network)
