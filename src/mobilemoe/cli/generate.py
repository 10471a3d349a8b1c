"""`mobilemoe generate`: continue a text with a checkpoint, on the native engine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mobilemoe.cli.memory import say_residency
from mobilemoe.cli.options import unfolded
from mobilemoe.cli.output import JsonOption, print_json
from mobilemoe.cli.running import PATH_HELP, SHIPPED, open_model
from mobilemoe.cli.sampling import MaxNewTokens, RunOptions, SamplingOptions

if TYPE_CHECKING:
    from mobilemoe.checkpoint import Tokenizer
    from mobilemoe.engine import Model, Token, TokenLogprob

PROMPT = "def read_lines(path):\n"  # there has to be something to continue

GENERATE_EXAMPLES = (
    "\b\nExamples:\n"
    "  mobilemoe generate\n"
    '  mobilemoe generate path/to/checkpoint --prompt "def main():"\n'
    "  mobilemoe generate path/to/checkpoint --prompt Once --temperature 0.8 --min-p 0.05\n"
    "  mobilemoe generate path/to/checkpoint --prompt Once --json --logprobs 3 --prompt-logprobs\n"
    "  mobilemoe generate path/to/checkpoint --prompt Once --resident 300MB"
)


@unfolded
def generate(
    path: Annotated[str, typer.Argument(metavar="[PATH]", help=PATH_HELP)] = SHIPPED,
    prompt: Annotated[str, typer.Option(help="The text to continue.")] = PROMPT,
    max_new_tokens: MaxNewTokens = 128,
    *,
    sampling: SamplingOptions,
    run: RunOptions,
    logprobs: Annotated[
        int, typer.Option(min=0, help="With --json: this many likeliest tokens beside each.")
    ] = 0,
    prompt_logprobs: Annotated[
        bool, typer.Option("--prompt-logprobs", help="With --json: of the prompt's tokens, too.")
    ] = False,
    save_routing: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Add to this file which experts the text chose."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Continue a text; the continuation is streamed to stdout."""
    if (logprobs or prompt_logprobs) and not as_json:
        raise typer.BadParameter("--logprobs and --prompt-logprobs need --json")
    model = open_model(path, run)
    session = model.session()
    document: dict[str, Any] = {"prompt": prompt}
    if prompt_logprobs:
        scored = model.logprobs(prompt, logprobs, session=session)
        document |= _prompt_part(model.encode(prompt), scored, model.tokenizer, logprobs > 0)
    tokens = model.generate(
        prompt, max_new_tokens, logprobs=logprobs, session=session, **sampling.keywords()
    )
    if as_json:
        document |= _new_part(list(tokens), model.tokenizer, logprobs > 0)
        print_json(document | _run_part(model))
        text = document["text"]
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


def _prompt_part(
    ids: list[int], scored: list[TokenLogprob], tokenizer: Tokenizer, with_top: bool
) -> dict[str, Any]:
    """Return what the document says of the prompt, whose first token has no probability."""
    part: dict[str, Any] = {
        "prompt_token_ids": ids,
        "prompt_logprobs": [None, *(token.logprob for token in scored)],
    }
    if with_top:
        part["prompt_top_logprobs"] = [[], *(_top(token, tokenizer) for token in scored)]
    return part


def _new_part(made: list[Token], tokenizer: Tokenizer, with_top: bool) -> dict[str, Any]:
    part: dict[str, Any] = {
        "text": "".join(token.text for token in made),
        "token_ids": [token.id for token in made],
        "logprobs": [token.logprob for token in made],
    }
    if with_top:
        part["top_logprobs"] = [_top(token, tokenizer) for token in made]
    return part | {"finish_reason": made[-1].finish_reason if made else None}


def _run_part(model: Model) -> dict[str, Any]:
    cost = model.residency()
    return {"start": model.start_line().to_dict(), "residency": cost and cost.to_dict()}


def _add_routing(model: Model, text: str, path: Path) -> None:
    """Add how the model routes `text` to the trace at `path`, which need not be there yet."""
    from mobilemoe.engine import RoutingTrace, collect_routing

    trace = collect_routing(model, [model.tokenizer.encode(text)[: model.context]])
    (RoutingTrace.read(path) + trace if path.exists() else trace).save(path)


def _top(token: Token | TokenLogprob, tokenizer: Tokenizer) -> list[dict[str, Any]]:
    return [
        {"id": i, "text": tokenizer.decode([i], skip_special_tokens=False), "logprob": logprob}
        for i, logprob in token.top_logprobs
    ]
