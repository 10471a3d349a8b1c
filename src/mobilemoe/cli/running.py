"""Opening a model for the verbs that run one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mobilemoe.cli.memory import say_start

if TYPE_CHECKING:
    from mobilemoe.cli.sampling import Activations
    from mobilemoe.engine import Model

PATH_HELP = "A checkpoint folder, or a hub id: owner/name or owner/name@revision."


def open_model(
    path: str,
    threads: int | None,
    context: int | None,
    activations: Activations | None,
    *,
    memory_limit: int | None = None,
    resident: int | None = None,
    routing_trace: Path | None = None,
    verbose: bool | None = None,
) -> Model:
    """Return the model at `path`, after its start line.

    Says on stderr when it has more threads than CPUs.
    """
    from mobilemoe import engine
    from mobilemoe.engine.threads import oversubscription, thread_plan

    if threads is not None and (warning := oversubscription(threads, thread_plan())):
        print(f"warning: {warning}", file=sys.stderr)
    return engine.load(
        path,
        threads=threads,
        context=context,
        activations=activations.value if activations else None,
        memory_limit=memory_limit,
        resident=resident,
        routing_trace=routing_trace,
        announce=lambda line: say_start(line, verbose),
    )
