"""Rows of parquet files, streamed by row group."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mobilemoe.data.sources.files import READ_ERRORS, need_pyarrow
from mobilemoe.data.sources.records import BadRecord, Place, Raw, Record
from mobilemoe.errors import MobileMoEError

_ROWS = 256  # rows held as Python objects at a time


def read_parquet(path: Path, columns: Sequence[str], start: Place | None = None) -> Iterator[Raw]:
    """Yield the rows of a parquet file as dicts of the wanted columns.

    A row group that cannot be read is one bad record, placed at its byte offset; the groups
    after it are read.

    Raises:
        MobileMoEError: if the file is not parquet, or lacks a column.
    """
    file = _open(path, columns)
    first, wanted = 0, start.record if start else 0
    if file.metadata.num_rows == 0:
        yield BadRecord(Place(str(path), 0), "empty file")
    for group in range(file.num_row_groups):
        rows: int = file.metadata.row_group(group).num_rows
        if first + rows > wanted:
            yield from _group_rows(file, path, group, columns, first, wanted)
        first += rows


def _open(path: Path, columns: Sequence[str]) -> Any:
    pyarrow = need_pyarrow(path)
    try:
        file = pyarrow.parquet.ParquetFile(path, page_checksum_verification=True)
        names = file.schema_arrow.names
    except READ_ERRORS as error:
        raise MobileMoEError(
            f"{path}: is not a readable parquet file: {error}", hint="is the download complete?"
        ) from error
    missing = [column for column in columns if column not in names]
    if missing:
        raise MobileMoEError(
            f"{path}: has no column {missing[0]!r}; it has: {', '.join(names)}",
            hint="set text_field or messages_field of the source",
        )
    return file


def _group_rows(
    file: Any, path: Path, group: int, columns: Sequence[str], first: int, wanted: int
) -> Iterator[Raw]:
    row = first
    try:
        for batch in file.iter_batches(_ROWS, row_groups=[group], columns=list(columns)):
            if row + batch.num_rows > wanted:
                fresh = max(0, wanted - row)
                yield from _batch_rows(batch.slice(fresh), path, row + fresh)
            row += batch.num_rows
    except READ_ERRORS as error:
        chunk = file.metadata.row_group(group).column(0)
        place = Place(str(path), max(row, wanted), chunk.data_page_offset)
        yield BadRecord(place, "damaged from here to the end of the row group", str(error))


def _batch_rows(batch: Any, path: Path, row: int) -> Iterator[Raw]:
    try:
        for number, fields in enumerate(batch.to_pylist()):
            yield Record(Place(str(path), row + number), fields)
    except UnicodeDecodeError:  # of any row: find out which
        for number in range(batch.num_rows):
            place = Place(str(path), row + number)
            try:
                yield Record(place, batch.slice(number, 1).to_pylist()[0])
            except UnicodeDecodeError as error:
                yield BadRecord(place, "not UTF-8", f"at byte {error.start} of the text")
