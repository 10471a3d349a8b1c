"""Which part of each weight a rank keeps, as `train/parallel` and `fully_shard` cut it.

FSDP2 cuts an axis of n into `ranks` chunks of ceil(n / ranks): the first ranks get full chunks,
the next one what is left, the others nothing; every rank stores a full chunk, padded. A weight
whose first axis is short (a rank's E / EP experts) would leave most ranks empty, so experts that
do not come out even are cut along their second axis, if that does.

Layers are gathered one at a time, their experts apart if they are shared by an EP group. The
routers and the root (embedding, head, last norm) are gathered once and stay whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import prod

from mobilemoe.config import ModelConfig
from mobilemoe.plan.cluster.layout import Layout
from mobilemoe.weights import Weight

PARTS = ("embedding", "attention", "router", "experts", "shared expert", "dense FFN", "norms")
ROOT, EXPERTS, ROUTER = "root", " experts", " router"


@dataclass(frozen=True)
class Shard:
    """One parameter on one rank: its shape after EP, and the axis that `ranks` ranks share.

    `unit` names what is gathered at once: a layer, the experts of a layer, or the root.
    """

    name: str
    part: str
    unit: str
    shape: tuple[int, ...]
    axis: int
    ranks: int

    @property
    def chunk(self) -> int:
        """Length of a full chunk of the cut axis."""
        return -(-self.shape[self.axis] // self.ranks)

    @property
    def padded_size(self) -> int:
        """Elements that every rank stores."""
        return self.chunk * self._cross_section

    @property
    def full_size(self) -> int:
        """Elements of the gathered weight, without padding."""
        return prod(self.shape)

    def size_on(self, rank: int) -> int:
        """Elements that are rank `rank`'s (of the `ranks`) to train."""
        left = self.shape[self.axis] - rank * self.chunk
        return max(0, min(self.chunk, left)) * self._cross_section

    @property
    def _cross_section(self) -> int:
        return prod(self.shape) // self.shape[self.axis]


@lru_cache(maxsize=64)  # a pure function that every part of a plan asks
def shards(config: ModelConfig, layout: Layout) -> tuple[Shard, ...]:
    """Return how every trained weight of `config` is cut; the router's bias is not trained."""
    return tuple(_shards(config, layout))


def _shards(config: ModelConfig, layout: Layout) -> Iterator[Shard]:
    for weight in config.weights():
        if weight.kind == "expert":
            shape = (weight.shape[0] // layout.expert_parallel, *weight.shape[1:])
            ranks, unit = layout.expert_copies, _layer(weight)
            if layout.expert_parallel > 1:
                unit = f"{unit}{EXPERTS}"
            yield Shard(weight.name, "experts", unit, shape, expert_axis(shape, ranks), ranks)
        elif weight.kind != "expert_bias":
            unit = f"{_layer(weight)}{ROUTER}" if weight.kind == "router" else _layer(weight)
            yield Shard(weight.name, part_of(weight), unit, weight.shape, 0, layout.gpus)


def expert_axis(shape: tuple[int, ...], ranks: int) -> int:
    """Return the axis along which FSDP cuts an expert weight of `shape` over `ranks` ranks.

    The first axis that divides evenly, the only way in which FSDP2 cuts others than axis 0; if
    none does, axis 0, with ranks that hold less or only padding.
    """
    return next((axis for axis, size in enumerate(shape) if size % ranks == 0), 0)


def part_of(weight: Weight) -> str:
    """Return the part of the model (one of `PARTS`) that `weight` belongs to."""
    plain = {"embedding": "embedding", "router": "router", "expert": "experts", "norm": "norms"}
    if weight.kind in plain:
        return plain[weight.kind]
    if weight.name == "lm_head.weight":
        return "embedding"
    if ".self_attn." in weight.name:
        return "attention"
    return "shared expert" if ".shared_expert." in weight.name else "dense FFN"


def _layer(weight: Weight) -> str:
    words = weight.name.split(".")
    return f"layer {words[2]}" if words[1] == "layers" else ROOT


def padded_by_part(config: ModelConfig, layout: Layout) -> dict[str, int]:
    """Return the elements of each part that every rank stores, padding included."""
    return _by_part([(shard.part, shard.padded_size) for shard in shards(config, layout)])


def trained_by_part(config: ModelConfig, layout: Layout, rank: int) -> dict[str, int]:
    """Return the elements of each part that are rank `rank`'s to train."""
    sizes = []
    for shard in shards(config, layout):
        is_expert = shard.part == "experts"
        own = rank // layout.expert_parallel if is_expert else rank
        sizes.append((shard.part, shard.size_on(own)))
    return _by_part(sizes)


def _by_part(sizes: list[tuple[str, int]]) -> dict[str, int]:
    present = {part for part, _ in sizes}
    totals = {part: 0 for part in PARTS if part in present}
    for part, size in sizes:
        totals[part] += size
    return totals


@dataclass(frozen=True)
class Unit:
    """What FSDP gathers and reduces at once.

    `full_size` elements are of use, `padded_size` are the chunks of all `ranks` ranks.
    """

    name: str
    ranks: int
    full_size: int
    padded_size: int

    @property
    def is_experts(self) -> bool:
        """Whether it is shared by one rank of each EP group, not by all ranks."""
        return self.name.endswith(EXPERTS)

    @property
    def stays(self) -> bool:
        """Whether it is gathered once per micro-batch, as float32, and stays whole."""
        return self.name == ROOT or self.name.endswith(ROUTER)

    @property
    def layer(self) -> str:
        """The layer it is a part of."""
        return self.name.removesuffix(EXPERTS).removesuffix(ROUTER)


@lru_cache(maxsize=64)
def units(config: ModelConfig, layout: Layout) -> tuple[Unit, ...]:
    """Return the units of `config` in the order of their first weight."""
    grouped: dict[str, list[Shard]] = {}
    for shard in shards(config, layout):
        grouped.setdefault(shard.unit, []).append(shard)
    return tuple(
        Unit(
            name=name,
            ranks=members[0].ranks,
            full_size=sum(shard.full_size for shard in members),
            padded_size=sum(shard.padded_size * shard.ranks for shard in members),
        )
        for name, members in grouped.items()
    )
