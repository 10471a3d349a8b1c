"""`mobilemoe demo`: the main job, shown while it runs."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mobilemoe.cli.output import JsonOption, print_json
from mobilemoe.errors import MobileMoEError

if TYPE_CHECKING:
    from types import FrameType

OUT_HELP = "Folder of the run; a run with other arguments that is there is moved aside."
TOKENS_HELP = "Training tokens instead of minutes: the same bits every time on one machine."

DEMO_EXAMPLES = (
    "\b\nExamples:\n  mobilemoe demo --minutes 10\n  mobilemoe demo --tokens 500000 --seed 1"
)


def demo(
    minutes: Annotated[float, typer.Option(help="Wall time for the whole job.")] = 10.0,
    seed: Annotated[int, typer.Option(help="Seed of weights and data order.")] = 0,
    tokens: Annotated[int | None, typer.Option(help=TOKENS_HELP)] = None,
    out: Annotated[Path, typer.Option(help=OUT_HELP)] = Path("runs/demo"),
    started_at: Annotated[float | None, typer.Option(hidden=True)] = None,
    as_json: JsonOption = False,
) -> None:
    """Design, train in four stages, quantise, run and measure a small MobileMoE.

    Ctrl-C stops after the current step and saves; the same command goes on from there.
    """
    require_extras()
    from mobilemoe.cli.demo_view import DemoView
    from mobilemoe.demo.chain import Chain
    from mobilemoe.demo.events import Stopped
    from mobilemoe.demo.settings import Settings

    settings = Settings(minutes, seed, tokens, started_at or time.time())
    with DemoView() as view, interrupt_flag() as flag:
        try:
            report = Chain(settings, out, view.show, lambda: flag["stop"]).run()
        except Stopped:
            view.stopped(out)
            raise typer.Exit(130) from None
    if as_json:
        print_json(report)
    else:
        view.summary(report, out)


def require_extras() -> None:
    """Check that the optional packages of the job are installed.

    Raises:
        MobileMoEError: naming the first one that is missing and how to get it.
    """
    for package, extra in (("torch", "train"), ("matplotlib", "plots")):
        if find_spec(package) is None:
            raise MobileMoEError(
                f"`mobilemoe demo` needs {package}, which is not installed",
                hint=f'pip install "mobilemoe[{extra}]", or use `make demo`',
            )


@contextmanager
def interrupt_flag() -> Iterator[dict[str, bool]]:
    """Turn the first Ctrl-C into a flag; a second one interrupts as usual."""
    flag = {"stop": False}

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        flag["stop"] = True
        signal.signal(number, previous)

    previous: Any = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield flag
    finally:
        signal.signal(signal.SIGINT, previous)
