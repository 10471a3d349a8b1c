"""`mobilemoe generate`: continue a text with a checkpoint, on the native engine."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

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

    from mobilemoe.engine import Token

GENERATE_EXAMPLES = (
    "\b\nExamples:\n"
    '  mobilemoe generate path/to/checkpoint --prompt "def main():"\n'
    "  mobilemoe generate path/to/checkpoint --prompt Once --temperature 0.8 --seed 1 --json"
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
    as_json: JsonOption = False,
) -> None:
    """Continue a text; the continuation is streamed to stdout."""
    model = open_model(path, threads, context, activations)
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
        _print_document(prompt, tokens)
    else:
        stream(tokens)


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


def _print_document(prompt: str, tokens: Iterator[Token]) -> None:
    made = list(tokens)
    print_json(
        {
            "prompt": prompt,
            "text": "".join(token.text for token in made),
            "token_ids": [token.id for token in made],
            "logprobs": [token.logprob for token in made],
            "finish_reason": made[-1].finish_reason if made else None,
        }
    )
