"""mobilemoe: sparse language models for small devices, from a budget to a native engine."""

from __future__ import annotations

from importlib.metadata import version as _version
from pathlib import Path as _Path
from typing import TYPE_CHECKING

from mobilemoe import config
from mobilemoe.config import ModelConfig
from mobilemoe.errors import CheckpointError, MobileMoEError

if TYPE_CHECKING:
    from mobilemoe.engine import Activations, Kv, Model, RoutingTrace

__all__ = ["CheckpointError", "MobileMoEError", "ModelConfig", "config", "load"]

__version__ = _version("mobilemoe")


def load(
    path: str | _Path = "shipped",
    threads: int | None = None,
    context: int | None = None,
    activations: Activations | None = None,
    revision: str | None = None,
    kv: Kv | None = None,
    memory_limit: int | None = None,
    resident: int | None = None,
    routing_trace: RoutingTrace | str | _Path | None = None,
) -> Model:
    """Open a checkpoint in the native engine: a folder, a model of the hub, or the package's own.

    See `mobilemoe.engine.load`; for example `load("facebook/MobileMoE-S-QAT")`. Without a path it
    is the small model that the package carries.

    Raises:
        CheckpointError: if the folder or one of its files is missing or damaged, or the hub
            refuses.
        MobileMoEError: for an argument outside its range, a memory plan above its limit, or a
            missing native module.
    """
    from mobilemoe.engine import load as load_engine  # keeps `import mobilemoe` light

    return load_engine(
        path,
        threads,
        context,
        activations,
        revision=revision,
        kv=kv,
        memory_limit=memory_limit,
        resident=resident,
        routing_trace=routing_trace,
    )
