"""The door to the C++ module: finding it, and turning its exceptions into ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from mobilemoe.errors import CheckpointError, MobileMoEError

_FILE_HINT = "see that the file can be read; if it can, fetch or write the checkpoint again"


def native_module() -> ModuleType:
    """Return `mobilemoe.engine._native`.

    Raises:
        MobileMoEError: if it was not built for this Python.
    """
    try:
        from mobilemoe.engine import _native
    except ImportError as error:
        raise MobileMoEError(
            f"the native engine cannot be loaded: {error}",
            hint="reinstall mobilemoe with a C++20 compiler at hand (`pip install .`)",
        ) from error
    return _native


@contextmanager
def native_errors() -> Iterator[None]:
    """Re-raise what the native module throws as MobileMoEError or CheckpointError."""
    module = native_module()
    try:
        yield
    except module.ModelFileError as error:
        message, hint = _split(error)
        raise CheckpointError(message, hint=hint or _FILE_HINT) from error
    except ValueError as error:
        if isinstance(error, MobileMoEError):
            raise
        message, hint = _split(error)
        raise MobileMoEError(message, hint=hint) from error
    except MemoryError as error:
        raise MobileMoEError(
            "not enough memory for the model and its context", hint="choose a smaller context"
        ) from error


def instruction_set(kernel: str = "auto") -> str:
    """Return the instruction set that `kernel` chooses on this CPU, as "avx512" or "portable".

    Raises:
        MobileMoEError: for an unknown kernel, and for one that this CPU lacks.
    """
    with native_errors():
        name: str = native_module().instruction_set(kernel)
        return name


def _split(error: Exception) -> tuple[str, str]:
    message, _, hint = str(error).partition("\nhint: ")
    return message, hint
