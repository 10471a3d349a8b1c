"""Options that `generate` and `chat` share: how to sample and how to run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Annotated, Any

import typer

from mobilemoe.cli.memory import MemoryLimit, Resident, RoutingTraceFile, Verbose


class Activations(StrEnum):
    """How the engine holds activations: fast, or the exact mode."""

    int8 = "int8"
    fp32 = "fp32"


class KvCache(StrEnum):
    """How the engine holds cached keys and values."""

    int8 = "int8"
    fp16 = "fp16"
    fp32 = "fp32"


MaxNewTokens = Annotated[int, typer.Option(min=1, help="Stop after this many tokens.")]
Temperature = Annotated[float, typer.Option(min=0.0, help="0 always takes the likeliest token.")]
TopP = Annotated[float, typer.Option(min=0.0, max=1.0, help="Keep this much probability.")]
TopK = Annotated[int, typer.Option(min=0, help="Keep this many tokens; 0 keeps all.")]
MinP = Annotated[
    float,
    typer.Option(min=0.0, max=1.0, help="Keep tokens of this share of the likeliest one's."),
]
RepetitionPenalty = Annotated[
    float, typer.Option(min=0.0, help="Above 1: tokens of the context are less likely.")
]
Seed = Annotated[int | None, typer.Option(min=0, help="Same seed, same text.")]
Stop = Annotated[list[str] | None, typer.Option(help="Text that ends the answer; repeatable.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Default: chosen by the engine.")]
Context = Annotated[int | None, typer.Option(min=1, help="Tokens to keep; default: the model's.")]
ActivationsOption = Annotated[
    Activations | None,
    typer.Option(help="int8 is fast, fp32 is exact; default: int8, for BF16 weights fp32."),
]

KvOption = Annotated[
    KvCache | None,
    typer.Option(help="Cached keys and values; default: int8, with fp32 activations fp32."),
]


@dataclass(frozen=True)
class SamplingOptions:
    """How tokens are drawn and where the text ends."""

    temperature: Temperature = 0.0
    top_p: TopP = 1.0
    top_k: TopK = 0
    min_p: MinP = 0.0
    repetition_penalty: RepetitionPenalty = 1.0
    seed: Seed = None
    stop: Stop = None

    def keywords(self) -> dict[str, Any]:
        """Return them as keyword arguments of `Model.generate`."""
        return {**asdict(self), "stop": tuple(self.stop or ())}


@dataclass(frozen=True)
class RunOptions:
    """How the engine runs a model."""

    threads: Threads = None
    context: Context = None
    activations: ActivationsOption = None
    kv: KvOption = None
    memory_limit: MemoryLimit = None
    resident: Resident = None
    routing_trace: RoutingTraceFile = None
    verbose: Verbose = None
