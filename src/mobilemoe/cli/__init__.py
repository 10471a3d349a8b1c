"""The `mobilemoe` command: one file per verb, and the only room that prints.

Exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted. Data goes to stdout, progress
and errors to stderr. Verbs import the rooms that they need when they run, so that help is
immediate and works without torch.
"""

from __future__ import annotations

from mobilemoe.cli.command import app, main

__all__ = ["app", "main"]
