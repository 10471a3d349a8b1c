"""How a run is spread over GPUs: ranks, nodes, expert parallelism, rows at a time.

Ranks are numbered node by node; the GPUs that share one set of experts (an EP group) are
neighbours, so that a small group stays inside a node. Everything but the experts is sharded
over all ranks, the experts over the EP group first and over the other ranks then.
"""

from __future__ import annotations

from dataclasses import dataclass

from mobilemoe.config import ModelConfig
from mobilemoe.errors import MobileMoEError
from mobilemoe.recipe import Recipe, Stage
from mobilemoe.recipe.schema import Precision

COMPUTE_BYTES: dict[Precision, int] = {"fp32": 4, "bf16": 2}
WIDE_BYTES = 4  # master weights, gradients, moments, norms, the router: float32 in every precision


@dataclass(frozen=True)
class Layout:
    """`gpus` ranks, of which `expert_parallel` neighbours share one set of experts.

    `micro_batch_rows` rows go through the model at a time; None: all that a GPU has of a step.

    Raises:
        MobileMoEError: naming the field, its value and what is allowed.
    """

    gpus: int
    expert_parallel: int = 1
    micro_batch_rows: int | None = None
    precision: Precision = "bf16"
    activation_checkpointing: bool = False
    gpus_per_node: int = 8

    def __post_init__(self) -> None:
        _positive("gpus", self.gpus)
        _positive("gpus_per_node", self.gpus_per_node)
        _positive("parallel.expert_parallel", self.expert_parallel)
        if self.micro_batch_rows is not None:
            _positive("run.micro_batch_rows", self.micro_batch_rows)
        if self.gpus > self.gpus_per_node and self.gpus % self.gpus_per_node:
            raise MobileMoEError(
                f"gpus is {self.gpus}; allowed: whole nodes of {self.gpus_per_node} GPUs",
                hint=f"--gpus {self.gpus // self.gpus_per_node * self.gpus_per_node}",
            )
        self._check_groups()

    def _check_groups(self) -> None:
        ep, node = self.expert_parallel, self.node_gpus
        if self.gpus % ep:
            raise MobileMoEError(
                f"parallel.expert_parallel is {ep}; allowed: a divisor of the {self.gpus} GPUs",
                hint=f"take a multiple of {ep} GPUs, or another expert_parallel",
            )
        if node % ep and ep % node:
            raise MobileMoEError(
                f"parallel.expert_parallel is {ep}; allowed: a divisor or a multiple of the "
                f"{node} GPUs of a node",
                hint="groups that straddle nodes unevenly are slow everywhere",
            )

    @classmethod
    def of(cls, recipe: Recipe, gpus: int, gpus_per_node: int = 8) -> Layout:
        """Return the layout that `recipe` has on `gpus` GPUs."""
        return cls(
            gpus=gpus,
            expert_parallel=recipe.parallel.expert_parallel,
            micro_batch_rows=recipe.run.micro_batch_rows,
            precision=recipe.run.precision,
            activation_checkpointing=recipe.run.activation_checkpointing,
            gpus_per_node=gpus_per_node,
        )

    @property
    def node_gpus(self) -> int:
        """GPUs of one node that take part."""
        return min(self.gpus, self.gpus_per_node)

    @property
    def expert_copies(self) -> int:
        """Ranks over which the experts of one EP rank are sharded."""
        return self.gpus // self.expert_parallel

    @property
    def compute_bytes(self) -> int:
        """Bytes of one value in the products."""
        return COMPUTE_BYTES[self.precision]

    def gathered_bytes(self, stage: Stage) -> int:
        """Return the bytes of one gathered value: fake quantisation starts from the floats."""
        return WIDE_BYTES if stage.fake_quant else self.compute_bytes

    def rows_per_gpu(self, stage: Stage) -> int:
        """Return the rows of one optimiser step that each GPU computes."""
        return stage.batch_size // self.gpus

    def micro_rows(self, stage: Stage) -> int:
        """Return the rows that go through the model at a time; at most what a GPU has of a step."""
        rows = self.rows_per_gpu(stage)
        return min(rows, self.micro_batch_rows or rows)

    def micro_batches(self, stage: Stage) -> int:
        """Return how often a GPU goes through the model per optimiser step."""
        return self.rows_per_gpu(stage) // self.micro_rows(stage)

    def micro_tokens(self, stage: Stage) -> int:
        """Return the tokens that go through the model of one GPU at a time."""
        return self.micro_rows(stage) * stage.context


def check_layout(config: ModelConfig, layout: Layout, stage: Stage) -> None:
    """Refuse a layout that cannot run `stage` of a model.

    Raises:
        MobileMoEError: if experts or rows do not divide evenly, or a row is too long.
    """
    E, ep = config.num_local_experts, layout.expert_parallel
    if ep > 1 and (E == 0 or E % ep):
        allowed = ", ".join(str(n) for n in range(1, E + 1) if E % n == 0) or "1 (a dense model)"
        raise MobileMoEError(
            f"parallel.expert_parallel is {ep}; allowed: divisors of {E} experts: {allowed}",
            hint="every rank of a group holds the same number of experts",
        )
    if stage.context > config.max_position_embeddings:
        raise MobileMoEError(
            f"{stage.name}.context is {stage.context}; allowed: up to the model's "
            f"max_position_embeddings {config.max_position_embeddings}"
        )
    _check_rows(layout, stage)


def _check_rows(layout: Layout, stage: Stage) -> None:
    rows, gpus = stage.batch_size, layout.gpus
    if rows == 0 or rows % gpus:
        nearest = max(1, round(rows / gpus)) * gpus * stage.context
        raise MobileMoEError(
            f"{stage.name}: {rows} rows per step; allowed: a multiple of the {gpus} GPUs",
            hint=f"--set {stage.name}.batch_tokens={nearest}, or --gpus {_fewer(layout, rows)}",
        )
    mine, micro = layout.rows_per_gpu(stage), layout.micro_rows(stage)
    if mine % micro:
        fitting = max(n for n in range(1, micro + 1) if mine % n == 0)
        raise MobileMoEError(
            f"{stage.name}: run.micro_batch_rows is {micro}; allowed: a divisor of the {mine} "
            "rows per GPU and step",
            hint=f"--set run.micro_batch_rows={fitting}",
        )


def _fewer(layout: Layout, rows: int) -> int:
    """Return the most GPUs, in whole nodes or less than one, that `rows` rows share evenly."""
    node = layout.gpus_per_node
    counts = (n for n in range(layout.gpus, 0, -1) if n < node or n % node == 0)
    return next((n for n in counts if rows % n == 0), 1)


def _positive(name: str, value: object) -> None:
    if type(value) is not int or value < 1:
        raise MobileMoEError(f"{name} is {value!r}; allowed: a whole number of at least 1")
