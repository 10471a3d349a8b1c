"""Records of line-based files: one JSON value per line, or pieces of plain text.

A plain text file is one document, unless it is long: then a document ends with the first
blank line after `PIECE_BYTES`, or with the first line end after four times as many. So a
long file is streamed, and some of it can be held out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mobilemoe.data.sources.files import READ_ERRORS, lines, open_content, skip
from mobilemoe.data.sources.records import MAX_RECORD_BYTES, BadRecord, Place, Raw, Record

PIECE_BYTES = 16 * 2**10

_BOM = b"\xef\xbb\xbf"


def read_jsonl(path: Path, start: Place | None = None) -> Iterator[Raw]:
    """Yield the lines of a .jsonl, .jsonl.gz or .jsonl.zst file as bytes; blank ones are not
    records, but count as lines.

    Raises:
        MobileMoEError: if the file cannot be opened.
    """
    for place, line in _placed_lines(path, start):
        if isinstance(line, BadRecord):
            yield line
        elif line is None:
            yield BadRecord(place, _too_long())
        elif line.strip():
            yield Record(place, line)


def read_txt(path: Path, start: Place | None = None) -> Iterator[Raw]:
    """Yield the documents of a text file as bytes.

    Raises:
        MobileMoEError: if the file cannot be opened.
    """
    record = start.record if start else 0
    first, piece = 0, bytearray()
    for place, line in _placed_lines(path, start):
        assert place.byte is not None
        if line is None or isinstance(line, BadRecord):
            if piece:
                yield Record(Place(str(path), record, first), bytes(piece))
                record, piece = record + 1, bytearray()
            own = Place(str(path), record, place.byte)
            yield BadRecord(own, line.reason, line.detail) if line else BadRecord(own, _too_long())
            record += 1
            continue
        first = first if piece else place.byte
        piece += line
        if _ends_piece(len(piece), line):
            yield Record(Place(str(path), record, first), bytes(piece))
            record, piece = record + 1, bytearray()
    if piece.strip() or (piece and record == 0):
        yield Record(Place(str(path), record, first), bytes(piece))


def _ends_piece(size: int, line: bytes) -> bool:
    blank = not line.strip()
    return (blank and size >= PIECE_BYTES) or size >= 4 * PIECE_BYTES


def _too_long() -> str:
    return f"longer than {MAX_RECORD_BYTES} bytes"


def _placed_lines(
    path: Path, start: Place | None
) -> Iterator[tuple[Place, bytes | BadRecord | None]]:
    """Yield the lines of a file with their places; a damaged file ends with a `BadRecord`."""
    record, byte = (start.record, start.byte or 0) if start else (0, 0)
    with open_content(path) as file:
        place = Place(str(path), record, byte)
        try:
            skip(file, byte, compressed=path.suffix in (".gz", ".zst"))
            for offset, line in lines(file, byte):
                place = Place(str(path), record, offset)
                yield place, _without_bom(line) if offset == 0 else line
                record, byte = record + 1, offset + (len(line) if line is not None else 0)
        except READ_ERRORS as error:
            place = Place(str(path), record, byte)
            yield place, BadRecord(place, "damaged from here to the end of the file", str(error))
            return
    if place.byte == 0 and record == 0:
        yield place, BadRecord(place, "empty file")


def _without_bom(line: bytes | None) -> bytes | None:
    return line.removeprefix(_BOM) if line is not None else None
