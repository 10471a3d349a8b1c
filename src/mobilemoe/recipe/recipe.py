"""The whole recipe: a model, its data and its four stages, checked against each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mobilemoe.config import ModelConfig
from mobilemoe.recipe.checks import Range, check_fields, check_name, nearest, require
from mobilemoe.recipe.schema import Guard, Optimizer, Parallel, RoutingLosses, Run, Source
from mobilemoe.recipe.stage import STAGE_NAMES, Stage


@dataclass(frozen=True)
class Recipe:
    """Everything that `mobilemoe train` needs to know.

    `tokenizer` is "embedded" (trained on the embedded corpus), a folder, or a hub id. `stages`
    are the four, in order.

    Raises:
        MobileMoEError: naming the table, the field, its value and what is allowed.
    """

    name: str
    model: ModelConfig
    seed: int
    tokenizer: str
    sources: Mapping[str, Source]
    optimizer: Optimizer
    routing: RoutingLosses
    stages: tuple[Stage, ...]
    run: Run = field(default_factory=Run)
    guard: Guard = field(default_factory=Guard)
    parallel: Parallel = field(default_factory=Parallel)

    def __post_init__(self) -> None:
        check_fields(self, "", {"seed": Range(0, 2**63 - 1)})
        check_name("name", self.name)
        require(bool(self.tokenizer), "tokenizer", self.tokenizer, '"embedded", a folder, a hub id')
        for key, source in self.sources.items():
            require(key == source.name, f"sources.{key}.name", source.name, repr(key))
        names = tuple(stage.name for stage in self.stages)
        require(names == STAGE_NAMES, "stages", names, ", ".join(STAGE_NAMES))
        for stage in self.stages:
            self._check_stage(stage)
        self._check_experts()

    def stage(self, name: str) -> Stage:
        """Return the stage called `name`.

        Raises:
            MobileMoEError: if there is none.
        """
        for stage in self.stages:
            if stage.name == name:
                return stage
        known = [stage.name for stage in self.stages]
        require(False, "stage", name, ", ".join(known), hint=nearest(name, known))
        raise AssertionError  # `require` has raised

    def _check_stage(self, stage: Stage) -> None:
        table, longest = stage.name, self.model.max_position_embeddings
        allowed = f"2 to max_position_embeddings {longest:,} of the model"
        require(stage.context <= longest, f"{table}.context", stage.context, allowed)
        allowed = f"0 to {stage.steps:,}, the steps of the stage"
        hint = f"lower {table}.warmup_steps or raise {table}.tokens"
        warmup = stage.warmup_steps
        require(warmup <= stage.steps, f"{table}.warmup_steps", warmup, allowed, hint)
        allowed = "none before qat: the stage after it starts from float weights"
        is_float = stage.name == "qat" or not stage.fake_quant
        require(is_float, f"{table}.quantization", "int4", allowed)
        domains = {source.domain for source in self.sources.values()}
        for name in stage.mixture:
            hint = nearest(name, self.sources)
            require(name in self.sources, f"{table}.mixture", name, "names of [sources]", hint)
        for name in stage.for_domains:
            hint = nearest(name, sorted(domains))
            require(name in domains, f"{table}.for_domains", name, "domains of [sources]", hint)

    def _check_experts(self) -> None:
        experts, ranks = self.model.num_local_experts, self.parallel.expert_parallel
        fits = ranks == 1 or (experts > 0 and experts % ranks == 0)
        allowed = f"a divisor of num_local_experts {experts}" if experts else "1 in a dense model"
        require(fits, "parallel.expert_parallel", ranks, allowed)
