"""Sources of texts and conversations: local files and streamed data sets, in a fixed order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mobilemoe.data.sources.decode import decode, fields_of
from mobilemoe.data.sources.files import source_files
from mobilemoe.data.sources.hub import read_hub
from mobilemoe.data.sources.parquet import read_parquet
from mobilemoe.data.sources.records import BadRecord, Place, Raw, Record, Sample, Turn
from mobilemoe.data.sources.text_lines import read_jsonl, read_txt
from mobilemoe.errors import MobileMoEError
from mobilemoe.recipe import Source

__all__ = [
    "BadRecord",
    "Place",
    "Raw",
    "Record",
    "Sample",
    "Turn",
    "decode",
    "read_raw",
    "read_samples",
    "source_identity",
]


def read_samples(source: Source) -> Iterator[Sample | BadRecord]:
    """Yield the texts or conversations of a source in order, and the records that are skipped.

    Raises:
        MobileMoEError: if there are no files, or a file or data set cannot be opened.
    """
    for raw in read_raw(source):
        yield raw if isinstance(raw, BadRecord) else decode(raw, source)


def read_raw(source: Source, start: Place | None = None) -> Iterator[Raw]:
    """Yield the records of a source as they are read, from the record at `start` on.

    Files come in the order of their paths. Raises as `read_samples`.
    """
    check_source(source)
    if source.kind == "hf":
        yield from read_hub(source, start)
        return
    for path in source_files(source.path, source.name):
        if start is None or str(path) == start.file:
            yield from _read_file(path, source, start)
            start = None
        # A file before the one to start from was read by an earlier run.


def source_identity(source: Source) -> dict[str, object]:
    """Return what decides a source's records: its fields, and its files with their sizes."""
    check_source(source)
    identity: dict[str, object] = {
        "kind": source.kind,
        "path": source.path,
        "text_field": source.text_field,
        "messages_field": source.messages_field,
    }
    if source.kind == "hf":
        extra = {"subset": source.subset, "split": source.split, "revision": source.revision}
        return identity | extra
    files = source_files(source.path, source.name)
    return identity | {"files": [[str(path), path.stat().st_size] for path in files]}


def check_source(source: Source) -> None:
    """Refuse a source whose fields do not fit its kind.

    Raises:
        MobileMoEError: naming the source and the field.
    """
    where = f"source {source.name} of kind {source.kind!r}"
    if source.kind == "embedded":
        raise MobileMoEError(f"{where}: allowed here: txt, jsonl, parquet, hf")
    given = [f for f in (source.text_field, source.messages_field) if f is not None]
    if source.kind == "txt" and given:
        raise MobileMoEError(f"{where} has a field {given[0]!r}; allowed: none for plain text")
    if source.kind != "txt" and len(given) != 1:
        raise MobileMoEError(
            f"{where} sets {len(given)} of text_field and messages_field; allowed: one of them"
        )
    if not all(fields_of(source)):
        raise MobileMoEError(f"{where}: a field's name is empty")


def _read_file(path: Path, source: Source, start: Place | None) -> Iterator[Raw]:
    if source.kind == "txt":
        return read_txt(path, start)
    if source.kind == "jsonl":
        return read_jsonl(path, start)
    return read_parquet(path, fields_of(source), start)
