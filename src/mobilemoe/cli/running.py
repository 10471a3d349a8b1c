"""Opening a model for the verbs that run one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from mobilemoe.cli.memory import say_start

if TYPE_CHECKING:
    from mobilemoe.cli.sampling import RunOptions
    from mobilemoe.engine import Model

SHIPPED = "shipped"  # checkpoint.shipped, which the command line imports only when it runs
PATH_HELP = (
    "A checkpoint folder, or a hub id: owner/name or owner/name@revision. "
    "By default the small model that the package carries."
)


def open_model(path: str, run: RunOptions) -> Model:
    """Return the model at `path`, after its start line.

    Says on stderr when it has more threads than CPUs.
    """
    from mobilemoe import engine
    from mobilemoe.engine.threads import oversubscription, thread_plan

    if run.threads is not None and (warning := oversubscription(run.threads, thread_plan())):
        print(f"warning: {warning}", file=sys.stderr)
    return engine.load(
        path,
        threads=run.threads,
        context=run.context,
        activations=run.activations.value if run.activations else None,
        kv=run.kv.value if run.kv else None,
        memory_limit=run.memory_limit,
        resident=run.resident,
        routing_trace=run.routing_trace,
        announce=lambda line: say_start(line, run.verbose),
    )
