"""mobilemoe: sparse language models for small devices, from a budget to a native engine."""

from __future__ import annotations

from importlib.metadata import version as _version

from mobilemoe import config
from mobilemoe.config import ModelConfig
from mobilemoe.errors import CheckpointError, MobileMoEError

__all__ = ["CheckpointError", "MobileMoEError", "ModelConfig", "config"]

__version__ = _version("mobilemoe")
