"""Rows of a data set of the Hugging Face hub, streamed; nothing is downloaded as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mobilemoe.data.sources.records import Place, Raw, Record
from mobilemoe.errors import MobileMoEError
from mobilemoe.recipe import Source


def read_hub(source: Source, start: Place | None = None) -> Iterator[Raw]:
    """Yield the rows of a data set as dicts, in the order of the hub's files.

    Raises:
        MobileMoEError: if `datasets` is missing, the data set, subset, split or revision does
            not exist, is gated, or the hub cannot be reached.
    """
    rows = _open(source)
    name = place_name(source)
    number = start.record if start else 0
    try:
        for row in rows.skip(number) if number else rows:
            yield Record(Place(name, number), row)
            number += 1
    except Exception as error:  # network, parquet, JSON: whatever the library ran into
        raise MobileMoEError(
            f"{Place(name, number)}: {_first_line(error)}", hint=_hint(error)
        ) from error


def place_name(source: Source) -> str:
    """Return what stands for the file's name in places."""
    parts = [source.path, source.subset or "default", source.split]
    return "hf:" + "/".join(parts) + (f"@{source.revision}" if source.revision else "")


def _open(source: Source) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise MobileMoEError(
            f"source {source.name}: streaming {source.path} needs datasets",
            hint='pip install "mobilemoe[train]"',
        ) from error
    try:
        return datasets.load_dataset(
            source.path,
            name=source.subset,
            split=source.split,
            revision=source.revision,
            streaming=True,
        )
    except Exception as error:  # the library has no common base class for these
        raise MobileMoEError(
            f"source {source.name}: cannot open {place_name(source)}: {_first_line(error)}",
            hint=_hint(error),
        ) from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _hint(error: Exception) -> str:
    """Return what to do, from the words that the libraries use."""
    text = f"{type(error).__name__} {error}".lower()
    if "gated" in text or "401" in text or "403" in text:
        return "accept the data set's terms on its page and log in with `hf auth login`"
    if "offline" in text or "connect" in text or "resolve" in text or "timeout" in text:
        return "the hub cannot be reached; run again online, or use local jsonl or parquet files"
    return "check path, subset, split and revision of the source; run again if the hub failed"
