"""`mobilemoe chat`: a conversation with a checkpoint, on the native engine."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Annotated

import typer

from mobilemoe.cli.generate import stream
from mobilemoe.cli.guard import print_error
from mobilemoe.cli.memory import (
    MemoryLimit,
    Resident,
    RoutingTraceFile,
    Verbose,
    say_residency,
)
from mobilemoe.cli.running import PATH_HELP, open_model
from mobilemoe.cli.sampling import (
    ActivationsOption,
    Context,
    MaxNewTokens,
    Seed,
    Temperature,
    Threads,
    TopK,
    TopP,
)
from mobilemoe.cli.stdin import not_utf8
from mobilemoe.errors import MobileMoEError

CHAT_EXAMPLES = (
    "\b\nExamples:\n"
    "  mobilemoe chat facebook/MobileMoE-S-QAT\n"
    '  echo "What is 2 + 3?" | mobilemoe chat path/to/checkpoint'
)
QUIT = "/quit"
Message = dict[str, str]


def chat(
    path: Annotated[str, typer.Argument(metavar="PATH", help=f"SFT or QAT. {PATH_HELP}")],
    system: Annotated[str | None, typer.Option(help="Instructions for the whole chat.")] = None,
    max_new_tokens: MaxNewTokens = 256,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    top_k: TopK = 0,
    seed: Seed = None,
    threads: Threads = None,
    context: Context = None,
    activations: ActivationsOption = None,
    memory_limit: MemoryLimit = None,
    resident: Resident = None,
    routing_trace: RoutingTraceFile = None,
    verbose: Verbose = None,
) -> None:
    """Talk to a model, one line per message; /quit or Ctrl-D ends it."""
    from mobilemoe.checkpoint import ChatFormat

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
    chat_format, tokenizer = ChatFormat.from_folder(model.folder), model.tokenizer

    def encode(messages: list[Message]) -> list[int]:
        return chat_format.encode(tokenizer, messages)

    def answer(messages: list[Message]) -> str:
        prompt_ids = encode(recent(messages, lambda kept: len(encode(kept)) < model.context))
        return stream(
            model.generate(
                prompt_ids,
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                top_p=top_p,
                top_k=top_k,
                seed=seed,
            )
        )

    try:
        converse(answer, [{"role": "system", "content": system}] if system else [])
    finally:
        say_residency(model)


def converse(answer: Callable[[list[Message]], str], messages: list[Message]) -> None:
    """Answer line after line of stdin, each with the whole conversation so far.

    At a terminal an error costs one message; in a pipe it ends the command.
    """
    interactive = sys.stdin.isatty()
    for line in _lines(interactive):
        if line == QUIT:
            return
        messages.append({"role": "user", "content": line})
        try:
            messages.append({"role": "assistant", "content": answer(messages)})
        except MobileMoEError as error:
            if not interactive:
                raise
            print_error(error)
            messages.pop()


def recent(messages: list[Message], fits: Callable[[list[Message]], bool]) -> list[Message]:
    """Return `messages` without as many of the oldest exchanges as the context demands."""
    start = 1 if messages[0]["role"] == "system" else 0
    system, kept = messages[:start], messages[start:]
    while len(kept) > 1 and not fits(system + kept):
        kept = kept[2:]
    if len(system + kept) < len(messages):
        print("note: the context is full; the oldest messages are left out", file=sys.stderr)
    return system + kept


def _lines(interactive: bool) -> Iterator[str]:
    """Yield what the user types, without blank lines, until Ctrl-D or the end of a pipe.

    Raises:
        MobileMoEError: if it is not UTF-8.
    """
    while True:
        try:
            line = input("> " if interactive else "").strip()
        except EOFError:
            if interactive:
                print()
            return
        except UnicodeDecodeError as error:
            raise not_utf8(error) from error
        if line:
            yield line
