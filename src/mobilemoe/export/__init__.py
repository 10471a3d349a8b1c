"""Checkpoints for other runtimes; each writer says what it had to change and what that costs."""

from mobilemoe.export.gguf import GgufExport, export_gguf

__all__ = ["GgufExport", "export_gguf"]
