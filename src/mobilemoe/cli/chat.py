"""`mobilemoe chat`: a conversation with a checkpoint, on the native engine."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from mobilemoe.cli.generate import stream
from mobilemoe.cli.guard import print_error
from mobilemoe.cli.memory import say_residency
from mobilemoe.cli.options import unfolded
from mobilemoe.cli.running import PATH_HELP, SHIPPED, open_model
from mobilemoe.cli.sampling import MaxNewTokens, RunOptions, SamplingOptions
from mobilemoe.cli.stdin import not_utf8
from mobilemoe.errors import MobileMoEError

if TYPE_CHECKING:
    from mobilemoe.checkpoint import ChatFormat
    from mobilemoe.engine import Model, Session

CHAT_EXAMPLES = (
    "\b\nExamples:\n"
    "  mobilemoe chat\n"
    "  mobilemoe chat facebook/MobileMoE-S-QAT\n"
    "  mobilemoe chat path/to/checkpoint --temperature 0.7 --min-p 0.05 --seed 1\n"
    '  echo "What is 2 + 3?" | mobilemoe chat path/to/checkpoint'
)
QUIT = "/quit"
Message = dict[str, str]


@unfolded
def chat(
    path: Annotated[
        str, typer.Argument(metavar="[PATH]", help=f"SFT or QAT. {PATH_HELP}")
    ] = SHIPPED,
    system: Annotated[str | None, typer.Option(help="Instructions for the whole chat.")] = None,
    max_new_tokens: MaxNewTokens = 256,
    *,
    sampling: SamplingOptions,
    run: RunOptions,
) -> None:
    """Talk to a model, one line per message; /quit or Ctrl-D ends it."""
    from mobilemoe.checkpoint import ChatFormat

    model = open_model(path, run)
    chat_format = ChatFormat.from_folder(model.folder)
    answer = answerer(model, model.session(), chat_format, max_new_tokens, sampling)
    try:
        converse(answer, [{"role": "system", "content": system}] if system else [])
    finally:
        say_residency(model)


def answerer(
    model: Model,
    session: Session,
    chat_format: ChatFormat,
    max_new_tokens: int,
    sampling: SamplingOptions,
) -> Callable[[list[Message]], str]:
    """Return a function that answers a conversation on stdout.

    Each turn continues `session` and reads only what is new since the last one.
    """

    def encode(messages: list[Message]) -> list[int]:
        return chat_format.encode(model.tokenizer, messages)

    def answer(messages: list[Message]) -> str:
        ids = encode(recent(messages, lambda kept: len(encode(kept)) < model.context))
        return stream(model.generate(ids, max_new_tokens, session=session, **sampling.keywords()))

    return answer


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
