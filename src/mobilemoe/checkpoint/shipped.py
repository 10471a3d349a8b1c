"""The small model that is part of the package: it answers at once, without a download."""

from __future__ import annotations

from pathlib import Path

from mobilemoe.errors import CheckpointError

SHIPPED = "shipped"  # the place that means it, unless a folder of that name is there
FOLDER = Path(__file__).parents[1] / "shipped"


def is_shipped(place: str | Path) -> bool:
    """Whether `place` means the package's own model."""
    return place == SHIPPED and not Path(place).exists()


def shipped_folder() -> Path:
    """Return the folder of the package's own checkpoint.

    Raises:
        CheckpointError: if this installation was made without it.
    """
    if not (FOLDER / "config.json").is_file():
        raise CheckpointError(
            f"this installation carries no model ({FOLDER})",
            hint="install the wheel, or give a checkpoint folder; `make demo` makes one",
        )
    return FOLDER
