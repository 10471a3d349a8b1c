"""Options that `generate` and `chat` share: how to sample and how to run."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Activations(StrEnum):
    """How the engine holds activations: fast, or the exact mode."""

    int8 = "int8"
    fp32 = "fp32"


MaxNewTokens = Annotated[int, typer.Option(min=1, help="Stop after this many tokens.")]
Temperature = Annotated[float, typer.Option(min=0.0, help="0 always takes the likeliest token.")]
TopP = Annotated[float, typer.Option(min=0.0, max=1.0, help="Keep this much probability.")]
TopK = Annotated[int, typer.Option(min=0, help="Keep this many tokens; 0 keeps all.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Same seed, same text.")]
Stop = Annotated[list[str] | None, typer.Option(help="Text that ends the answer; repeatable.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Default: chosen by the engine.")]
Context = Annotated[int | None, typer.Option(min=1, help="Tokens to keep; default: the model's.")]
ActivationsOption = Annotated[
    Activations | None,
    typer.Option(help="int8 is fast, fp32 is exact; default: int8, for BF16 weights fp32."),
]
