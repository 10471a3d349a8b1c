"""Opening a model for the verbs that run one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mobilemoe.cli.sampling import Activations, KvCache
    from mobilemoe.engine import Model

PATH_HELP = "A checkpoint folder, or a hub id: owner/name or owner/name@revision."


def open_model(
    path: str,
    threads: int | None,
    context: int | None,
    activations: Activations | None,
    kv: KvCache | None,
) -> Model:
    """Return the model at `path`; say on stderr when it has more threads than CPUs."""
    from mobilemoe import engine
    from mobilemoe.engine.threads import oversubscription, thread_plan

    if threads is not None and (warning := oversubscription(threads, thread_plan())):
        print(f"warning: {warning}", file=sys.stderr)
    return engine.load(
        path,
        threads=threads,
        context=context,
        activations=activations.value if activations else None,
        kv=kv.value if kv else None,
    )
