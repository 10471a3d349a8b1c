"""The options of `mobilemoe plan`, and the constraints that they add up to."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mobilemoe.cli.units import parse_bytes, parse_flops, parse_number

if TYPE_CHECKING:
    from mobilemoe.plan import Constraints

SMALL_MEMORY = 250_000_000  # below, the released tokenizer's embedding alone would fill it


class KvCache(StrEnum):
    """Number formats of the KV cache."""

    int8 = "int8"
    fp16 = "fp16"
    fp32 = "fp32"


class Prefer(StrEnum):
    """What decides among models whose losses the law cannot tell apart."""

    loss = "loss"
    memory = "memory"
    speed = "speed"
    training = "training"


MemoryOption = Annotated[
    int | None,
    typer.Option(
        parser=parse_bytes,
        metavar="BYTES",
        help="For INT4 weights and KV cache. Default: what --device allows an app, else 4.75MB.",
    ),
]
ContextOption = Annotated[
    int | None,
    typer.Option(min=1, help="Tokens that the KV cache holds. Default: 8192; 1024 below 250MB."),
]
FlopsOption = Annotated[
    int | None,
    typer.Option(
        parser=parse_flops,
        metavar="FLOPS",
        help="Limit on the forward pass of one token. Default: none; 3.2MFLOP without --memory.",
    ),
]
VocabOption = Annotated[
    int | None,
    typer.Option(min=256, help="Vocabulary size. Default: 128256; 4096 below 250MB."),
]
KvOption = Annotated[KvCache, typer.Option(help="Number format of the KV cache.")]
DeviceOption = Annotated[
    str | None,
    typer.Option(metavar="NAME|FILE", help="Device profile that speeds are predicted for."),
]
ThreadsOption = Annotated[int | None, typer.Option(min=1, help="Default: the profile's.")]
DecodeOption = Annotated[
    float | None, typer.Option(min=0, help="Tokens per second that decoding must reach.")
]
DepthOption = Annotated[
    int | None,
    typer.Option(min=1, help="Positions in the cache while decoding is timed. Default: 1024."),
]
TtftOption = Annotated[
    float | None, typer.Option("--ttft", min=0, help="Seconds a prompt may take.")
]
PromptOption = Annotated[
    int | None, typer.Option(min=1, help="Tokens of the prompt of --ttft. Default: 1024.")
]
TrainFlopsOption = Annotated[
    float | None,
    typer.Option(
        parser=parse_number,
        metavar="FLOPS",
        help="Pre-training budget, such as 1e22; buys tokens at 6 FLOPs per active parameter.",
    ),
]
TokensOption = Annotated[
    float | None,
    typer.Option(parser=parse_number, metavar="N", help="Pre-training tokens, such as 500B."),
]
GranularityOption = Annotated[
    list[int] | None,
    typer.Option(help="Fine experts per expert equivalent to look at; may be repeated. Default 8."),
]
SharedOption = Annotated[
    bool,
    typer.Option("--no-shared-expert", help="Look at models without a shared expert as well."),
]
ExtrapolateOption = Annotated[
    bool,
    typer.Option("--extrapolate", help="Rank by the law outside its fitted range, marked."),
]
PreferOption = Annotated[
    Prefer, typer.Option(help="What decides where the law cannot tell losses apart.")
]
LawOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="A law of your own. Default: the published one."),
]


def refuse_unused(verb: typer.Context, ttft: float | None, prompt: int | None) -> None:
    """Refuse what would have no effect: --prompt alone, and options before a verb of their own.

    Raises:
        typer.BadParameter: naming the option.
    """
    if verb.invoked_subcommand is not None:
        sources = ((name, verb.get_parameter_source(name)) for name in verb.params)
        given = [name for name, source in sources if source and source.name == "COMMANDLINE"]
        if given:
            option = "--" + given[0].replace("_", "-")
            raise typer.BadParameter(
                f"{option} has no effect before {verb.invoked_subcommand}; options of "
                f"`plan {verb.invoked_subcommand}` come after it"
            )
    elif prompt is not None and ttft is None:
        raise typer.BadParameter("--prompt has no effect without --ttft")


@dataclass(frozen=True)
class Asked:
    """The options that become constraints, as they were given; None is not given."""

    memory: int | None
    context: int | None
    flops: int | None
    vocab: int | None
    device: str | None
    granularity: list[int] | None
    no_shared_expert: bool
    others: dict[str, Any]

    def constraints(self) -> Constraints:
        """Return the constraints, with the defaults of a demonstration, a small or a large one.

        Raises:
            MobileMoEError: if the device is unknown or a value is not allowed.
        """
        from mobilemoe.plan import Budget, Constraints
        from mobilemoe.plan.device import load_profile

        profile = None if self.device is None else load_profile(self.device)
        memory, flops = self.memory, self.flops
        if memory is None and profile is not None:
            memory = int(profile.memory_bytes.value)
        if memory is None:
            memory, flops = Budget.memory_bytes, flops or Budget.flops_per_token
        is_small = memory < SMALL_MEMORY
        return Constraints(
            memory_bytes=memory,
            context=self.context or (1024 if is_small else 8192),
            vocab_size=self.vocab or (4096 if is_small else Constraints.vocab_size),
            flops_per_token=flops,
            device=profile,
            granularities=tuple(dict.fromkeys(self.granularity or Constraints.granularities)),
            shared_expert=(True, False) if self.no_shared_expert else (True,),
            **self.others,
        )
