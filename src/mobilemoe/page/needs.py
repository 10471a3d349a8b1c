"""The error for a missing matplotlib, which only figures need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mobilemoe.errors import MobileMoEError


@contextmanager
def needs_matplotlib(what: str) -> Iterator[None]:
    """Turn a missing matplotlib into the error that says how to get it; `what` begins it.

    Raises:
        MobileMoEError: if the block imports matplotlib and it is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "matplotlib":
            raise
        raise MobileMoEError(
            f"{what} with matplotlib, which is not installed",
            hint="pip install 'mobilemoe[plots]'",
        ) from error
