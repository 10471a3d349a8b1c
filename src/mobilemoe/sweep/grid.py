"""What a sweep is: sizes, grids over experts, tokens and seeds, and one way of training. No torch.

The grids stand in the order of the paper's divide and conquer: first the number of expert
equivalents E, then the granularity g, then the shared expert (arXiv 2605.27358). A run that two
grids share is trained once.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

from mobilemoe.config import ModelConfig
from mobilemoe.data import DOMAINS
from mobilemoe.recipe import Stage
from mobilemoe.recipe.checks import Range, check_fields, check_name, nearest, require
from mobilemoe.sweep.architecture import Experts, Shape, build_config


@dataclass(frozen=True)
class Size:
    """One model size and its peak learning rate."""

    name: str
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    lr: float

    def __post_init__(self) -> None:
        check_name("a size's name", self.name)
        ranges = {"hidden_size": _WHOLE, "layers": _WHOLE, "heads": _WHOLE, "kv_heads": _WHOLE}
        ranges |= {"head_dim": _WHOLE, "lr": Range(0, 1, above=True)}
        check_fields(self, f"sizes.{self.name}", ranges)

    @property
    def shape(self) -> Shape:
        """The part that decides the model."""
        return Shape(self.hidden_size, self.layers, self.heads, self.kv_heads, self.head_dim)


@dataclass(frozen=True)
class SweepTraining:
    """How every run is trained: the embedded corpus, AdamW, cosine to `final_lr`.

    `mixture` gives the share of each domain in training and in the reported loss;
    `heldout_tokens` are scored per domain. `capacity_factor` 0 is dropless.
    """

    vocab_size: int
    context: int
    batch_tokens: int
    warmup_steps: int
    final_lr: float
    capacity_factor: float
    bias_update_rate: float
    z_loss: float
    heldout_tokens: int
    mixture: Mapping[str, float]

    def __post_init__(self) -> None:
        ranges = {"vocab_size": Range(512, 2**20), "capacity_factor": Range(0, 1000)}
        ranges |= {"bias_update_rate": Range(0, 1), "z_loss": Range(0, 1)}
        ranges |= {"heldout_tokens": Range(256, 10**8)}
        check_fields(self, "training", ranges)
        for domain in self.mixture:
            hint = nearest(domain, DOMAINS)
            require(domain in DOMAINS, "training.mixture", domain, ", ".join(DOMAINS), hint)
        self.stage(1, 1e-3)  # the rest is checked as a stage checks it

    def stage(self, tokens: int, lr: float) -> Stage:
        """Return the stage that trains `tokens` with a peak of `lr`."""
        stage = Stage(
            name="pretrain",
            purpose="one run of a sweep",
            for_domains=tuple(self.mixture),
            tokens=tokens,
            context=self.context,
            batch_tokens=self.batch_tokens,
            mixture=self.mixture,
            lr=lr,
            schedule="cosine",
            warmup_steps=self.warmup_steps,
            final_lr=self.final_lr,
            capacity_factor=self.capacity_factor or None,
        )
        return stage.with_tokens(tokens)


@dataclass(frozen=True)
class RunSpec:
    """One run: a size, a choice of experts, tokens and a seed."""

    size: Size
    experts: Experts
    tokens: int
    seed: int

    @property
    def key(self) -> str:
        """A name that no other run of the sweep has."""
        e = self.experts
        experts = "dense" if e.is_dense else f"E{e.expert_equivalents}-g{e.granularity}"
        shared = "-shared" if e.shared_expert and not e.is_dense else ""
        return f"{self.size.name}/{experts}{shared}/{self.tokens}/seed{self.seed}"

    def config(self, training: SweepTraining) -> ModelConfig:
        """Return the model of this run."""
        return build_config(self.size.shape, self.experts, training.vocab_size, training.context)


@dataclass(frozen=True)
class Grid:
    """Every combination of these values is one run."""

    name: str
    sizes: tuple[str, ...]
    expert_equivalents: tuple[int, ...]
    granularity: tuple[int, ...]
    shared_expert: tuple[bool, ...]
    tokens: tuple[int, ...]
    seeds: tuple[int, ...]

    def __post_init__(self) -> None:
        check_name("a grid's name", self.name)
        check_fields(self, f"grids.{self.name}", {})
        for field in ("expert_equivalents", "granularity", "tokens"):
            self._require_each(field, _WHOLE)
        self._require_each("seeds", Range(0, 2**31))

    def _require_each(self, field: str, allowed: Range) -> None:
        for value in getattr(self, field):
            require(value in allowed, f"grids.{self.name}.{field}", value, str(allowed))

    def runs(self, sizes: Mapping[str, Size]) -> Iterator[RunSpec]:
        """Yield the runs, the cheapest token budgets first."""
        combinations = itertools.product(
            sorted(self.tokens),
            self.seeds,
            self.sizes,
            self.expert_equivalents,
            self.granularity,
            self.shared_expert,
        )
        for tokens, seed, size, equivalents, granularity, shared in combinations:
            experts = Experts(equivalents, granularity, shared)
            yield RunSpec(sizes[size], experts, tokens, seed)


@dataclass(frozen=True)
class Sweep:
    """The whole sweep, checked: every run of every grid can be built."""

    name: str
    training: SweepTraining
    sizes: Mapping[str, Size]
    grids: tuple[Grid, ...]

    def __post_init__(self) -> None:
        check_name("name", self.name)
        for grid in self.grids:
            for name in grid.sizes:
                hint = nearest(name, self.sizes)
                known = name in self.sizes
                require(known, f"grids.{grid.name}.sizes", name, "names of [sizes]", hint)
        for run in self.runs():
            run.config(self.training)
            self.training.stage(run.tokens, run.size.lr)

    def runs(self) -> tuple[RunSpec, ...]:
        """Return all runs in order, each once."""
        runs = (run for grid in self.grids for run in grid.runs(self.sizes))
        return tuple({run.key: run for run in runs}.values())

    def fingerprint(self, run: RunSpec) -> str:
        """Return a digest of everything that decides the outcome of `run`."""
        content = {"run": asdict(run), "training": asdict(self.training)}
        text = json.dumps(content, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


_WHOLE = Range(1, 10**12)
