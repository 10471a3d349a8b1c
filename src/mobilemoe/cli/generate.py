"""`mobilemoe generate`: continue a text with a checkpoint, on the native engine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mobilemoe.cli.memory import (
    MemoryLimit,
    Resident,
    RoutingTraceFile,
    Verbose,
    say_residency,
)
from mobilemoe.cli.output import JsonOption, print_json
from mobilemoe.cli.running import PATH_HELP, open_model
from mobilemoe.cli.sampling import (
    ActivationsOption,
    Context,
    MaxNewTokens,
    Seed,
    Stop,
    Temperature,
    Threads,
    TopK,
    TopP,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mobilemoe.engine import Model, Token

GENERATE_EXAMPLES = (
    "\b\nExamples:\n"
    '  mobilemoe generate path/to/checkpoint --prompt "def main():"\n'
    "  mobilemoe generate path/to/checkpoint --prompt Once --temperature 0.8 --seed 1 --json\n"
    "  mobilemoe generate path/to/checkpoint --prompt Once --resident 300MB"
)


def generate(
    path: Annotated[str, typer.Argument(metavar="PATH", help=PATH_HELP)],
    prompt: Annotated[str, typer.Option(help="The text to continue.")],
    max_new_tokens: MaxNewTokens = 128,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    top_k: TopK = 0,
    seed: Seed = None,
    stop: Stop = None,
    threads: Threads = None,
    context: Context = None,
    activations: ActivationsOption = None,
    memory_limit: MemoryLimit = None,
    resident: Resident = None,
    routing_trace: RoutingTraceFile = None,
    save_routing: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Add to this file which experts the text chose."),
    ] = None,
    verbose: Verbose = None,
    as_json: JsonOption = False,
) -> None:
    """Continue a text; the continuation is streamed to stdout."""
    model = open_model(
        path,
        threads,
        context,
        activations,
        memory_limit=memory_limit,
        resident=resident,
        routing_trace=routing_trace,
        verbose=verbose,
    )
    tokens = model.generate(
        prompt,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        seed=seed,
        stop=tuple(stop or ()),
    )
    if as_json:
        made = list(tokens)
        text = "".join(token.text for token in made)
        _print_document(model, prompt, text, made)
    else:
        text = stream(tokens)
    say_residency(model)
    if save_routing is not None:
        _add_routing(model, prompt + text, save_routing)


def stream(tokens: Iterator[Token]) -> str:
    """Print each token's text as it comes, then a newline; return the whole text."""
    pieces = []
    reason = None
    for token in tokens:
        reason = token.finish_reason
        pieces.append(token.text)
        sys.stdout.write(token.text)
        sys.stdout.flush()
    print(flush=True)
    if reason == "context":
        print("note: the context is full; the text ends here", file=sys.stderr)
    return "".join(pieces)


def _add_routing(model: Model, text: str, path: Path) -> None:
    """Add how the model routes `text` to the trace at `path`, which need not be there yet."""
    from mobilemoe.engine import RoutingTrace, collect_routing

    trace = collect_routing(model, [model.tokenizer.encode(text)[: model.context]])
    (RoutingTrace.read(path) + trace if path.exists() else trace).save(path)


def _print_document(model: Model, prompt: str, text: str, made: list[Token]) -> None:
    cost = model.residency()
    print_json(
        {
            "prompt": prompt,
            "text": text,
            "token_ids": [token.id for token in made],
            "logprobs": [token.logprob for token in made],
            "finish_reason": made[-1].finish_reason if made else None,
            "start": model.start_line().to_dict(),
            "residency": cost and cost.to_dict(),
        }
    )
