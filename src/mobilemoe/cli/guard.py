"""What every verb does with an error: say it in two lines and set the exit status."""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import ParamSpec, TypeVar

import typer

from mobilemoe.errors import MobileMoEError

P = ParamSpec("P")
R = TypeVar("R")

FAILED = 1
INTERRUPTED = 130  # 128 + SIGINT, as shells report it
ENDING_SIGNALS = (signal.SIGTERM, signal.SIGHUP) if os.name == "posix" else (signal.SIGTERM,)
TRACEBACK_VARIABLE = "MOBILEMOE_TRACEBACK"


def guarded(verb: Callable[P, R]) -> Callable[P, R]:
    """Return `verb` with its errors turned into messages and exit statuses.

    A `MobileMoEError` becomes `error:` and `hint:` on stderr and status 1, unless
    MOBILEMOE_TRACEBACK is 1; Ctrl-C becomes status 130, SIGTERM and SIGHUP 128 and their
    number, after what was half written has been removed. Any other exception is a defect of
    ours and keeps its traceback.
    """

    @functools.wraps(verb)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        for number in ENDING_SIGNALS:
            if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores one, and so do we
                signal.signal(number, _leave)
        try:
            return verb(*args, **kwargs)
        except MobileMoEError as error:
            if os.environ.get(TRACEBACK_VARIABLE) == "1":
                raise
            print_error(error)
            raise typer.Exit(FAILED) from error
        except KeyboardInterrupt:
            print("\ninterrupted", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None

    return run


def _leave(number: int, frame: FrameType | None) -> None:
    """Leave through every `finally`."""
    raise SystemExit(128 + number)


def print_error(error: MobileMoEError) -> None:
    """Print the message and the hint of `error` on stderr."""
    sys.stdout.flush()
    print(f"error: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)
