"""The one error type that a user of mobilemoe is meant to read."""

from __future__ import annotations


class MobileMoEError(ValueError):
    """Bad input or a bad environment: what, where, what is allowed, and a hint.

    `str(error)` is the message; `hint` is one sentence that says what to do. The
    command line prints both; library users can show either.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message


class CheckpointError(MobileMoEError):
    """A checkpoint folder or file that is missing, damaged or not of this family."""
