"""Bad data is reported with file, record and offset, and the rest of it is used."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shard_support import documents, talk_source, text_source, tokenizer_json, write_jsonl

from mobilemoe.data.shards import PrepareOptions, ShardSet, prepare_source
from mobilemoe.data.sources.records import MAX_RECORD_BYTES
from mobilemoe.errors import MobileMoEError
from mobilemoe.recipe import Source

GOOD = b'{"text": "the small river"}\n'
TALK = b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'


def _turns(*turns: tuple[object, object]) -> bytes:
    rows = [{"role": role, "content": content} for role, content in turns]
    return json.dumps({"messages": rows}).encode() + b"\n"


@dataclass(frozen=True)
class Bad:
    """A line that is bad, and what is said of it."""

    line: bytes
    reason: str
    detail: str = ""
    talks: bool = False


LINES = {
    "no JSON at all": Bad(b"hello\n", "not JSON", "Expecting value at character 0"),
    "JSON cut short": Bad(b'{"text": "riv\n', "not JSON", "at character 9"),
    "two values": Bad(b'{"text": "a"} {"text": "b"}\n', "not JSON", "Extra data at character 14"),
    "single quotes": Bad(b"{'text': 'a'}\n", "not JSON"),
    "nested without end": Bad(b"[" * 100_000 + b"\n", "not JSON"),
    "a number of 5,000 digits": Bad(b'{"text": ' + b"9" * 5000 + b"}\n", "not JSON"),
    "a list": Bad(b'["text"]\n', "not a JSON object", "it is list"),
    "null": Bad(b"null\n", "not a JSON object", "it is null"),
    "another field": Bad(b'{"txet": "a"}\n', "no field 'text'", "it has: 'txet'"),
    "a number as text": Bad(b'{"text": 7}\n', "field 'text' is not text", "it is int"),
    "null as text": Bad(b'{"text": null}\n', "field 'text' is not text", "it is null"),
    "a list as text": Bad(b'{"text": ["a"]}\n', "field 'text' is not text", "it is list"),
    "an empty text": Bad(b'{"text": ""}\n', "field 'text' is empty"),
    "only spaces": Bad(b'{"text": " \\n\\t "}\n', "field 'text' is empty"),
    "Latin-1": Bad(b'{"text": "caf\xe9 a"}\n', "not UTF-8", "at byte 13 of the record"),
    "UTF-16": Bad('{"text": "a"}'.encode("utf-16") + b"\n", "not UTF-8"),
    "a NUL byte": Bad(b'{"text": "a\x00b"}\n', "not JSON", "Invalid control character"),
    "an escaped NUL": Bad(b'{"text": "a\\u0000b"}\n', "NUL character", "at character 1"),
    "NUL bytes only": Bad(b"\x00" * 900 + b"\n", "not JSON"),
    "half a pair": Bad(b'{"text": "a \\ud83d b"}\n', "half a surrogate pair"),
    "a special token": Bad(
        b'{"text": "so <|eot|> ends"}\n', "a special token spelled out", "<|eot|> at character 3"
    ),
    "begin of text": Bad(b'{"text": "<|begin_of_text|>a"}\n', "a special token spelled out"),
    "an absurd line": Bad(
        b'{"text": "' + b"a" * MAX_RECORD_BYTES + b'"}\n', f"longer than {MAX_RECORD_BYTES} bytes"
    ),
    "no messages": Bad(b'{"text": "a"}\n', "no field 'messages'", talks=True),
    "messages as text": Bad(
        b'{"messages": "hi"}\n', "field 'messages' is not a list of turns", "it is str", talks=True
    ),
    "a turn as text": Bad(
        b'{"messages": ["hi"]}\n', "a turn is not an object", "turn 0 is str", talks=True
    ),
    "an unknown role": Bad(
        _turns(("user", "a"), ("narrator", "b")),
        "a turn without a known role",
        "turn 1 has 'narrator'",
        talks=True,
    ),
    "a turn without role": Bad(
        b'{"messages": [{"content": "a"}]}\n', "a turn without a known role", talks=True
    ),
    "no answer": Bad(_turns(("user", "a")), "no turn of the assistant", "1 turns", talks=True),
    "no turns": Bad(b'{"messages": []}\n', "no turn of the assistant", "0 turns", talks=True),
    "a late system turn": Bad(
        _turns(("user", "a"), ("system", "b"), ("assistant", "c")),
        "a system turn after the first turn",
        talks=True,
    ),
    "an empty turn": Bad(
        _turns(("user", "a"), ("assistant", " ")), "the content of a turn is empty", talks=True
    ),
    "a turn's content is null": Bad(
        _turns(("user", "a"), ("assistant", None)), "the content of a turn is not text", talks=True
    ),
    "a turn that ends itself": Bad(
        _turns(("user", "a"), ("assistant", "b<|eot|>")), "a special token spelled out", talks=True
    ),
}


def _made(source: Source, folder: Path, share: float = 0.9) -> ShardSet:
    options = PrepareOptions(max_bad_share=share)
    return prepare_source(source, tokenizer_json(), folder, None, 0, options=options)


@pytest.mark.parametrize("name", LINES)
def test_a_bad_line_is_skipped_and_reported(name: str, tmp_path: Path) -> None:
    bad = LINES[name]
    good = TALK if bad.talks else GOOD
    path = tmp_path / "a.jsonl"
    path.write_bytes(good + b"\n" + good + bad.line + good)
    source = talk_source(path) if bad.talks else text_source(path)
    shards = _made(source, tmp_path / "o")
    (found,) = shards.bad_shown
    assert found.reason == bad.reason
    assert bad.detail in found.detail
    assert (found.place.record, found.place.byte) == (3, 2 * len(good) + 1)
    assert str(found).startswith(f"{path}: record 3, byte {2 * len(good) + 1}: {bad.reason}")
    assert shards.index.bad == {bad.reason: 1}
    assert shards.index.records == 4
    parts = shards.index.shards[0]
    assert parts.train.documents + parts.heldout.documents + parts.repeats == 3


def _no_file(folder: Path) -> None:
    (folder / "a").mkdir()


def _not_gzip(folder: Path) -> None:
    (folder / "a.jsonl.gz").write_bytes(GOOD)


def _gzip_header_only(folder: Path) -> None:
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(GOOD)[:9])


def _not_zstd(folder: Path) -> None:
    (folder / "a.jsonl.zst").write_bytes(GOOD)


def _not_parquet(folder: Path) -> None:
    (folder / "a.parquet").write_bytes(GOOD * 9)


def _empty_parquet(folder: Path) -> None:
    (folder / "a.parquet").write_bytes(b"")


def _truncated_parquet(folder: Path) -> None:
    pq.write_table(pa.table({"text": ["a"] * 99}), folder / "a.parquet")
    data = (folder / "a.parquet").read_bytes()
    (folder / "a.parquet").write_bytes(data[:-20])


def _other_columns(folder: Path) -> None:
    pq.write_table(pa.table({"body": ["a"], "id": [1]}), folder / "a.parquet")


UNREADABLE: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "no file": (_no_file, "jsonl", "no file is named by"),
    "text called gz": (_not_gzip, "jsonl", r"a\.jsonl\.gz: cannot be read: Not a gzipped file"),
    "half a gzip header": (_gzip_header_only, "jsonl", r"a\.jsonl\.gz: cannot be read"),
    "text called zst": (_not_zstd, "jsonl", r"a\.jsonl\.zst: cannot be read: not a zstd file"),
    "text called parquet": (_not_parquet, "parquet", r"a\.parquet: is not a readable parquet"),
    "an empty parquet": (_empty_parquet, "parquet", r"a\.parquet: is not a readable parquet"),
    "a parquet cut short": (_truncated_parquet, "parquet", r"a\.parquet: is not a readable"),
    "other columns": (_other_columns, "parquet", "no column 'text'; it has: body, id"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_file_that_cannot_be_opened_stops_with_its_name(name: str, tmp_path: Path) -> None:
    write, kind, message = UNREADABLE[name]
    folder = tmp_path / "in"
    folder.mkdir()
    write(folder)
    with pytest.raises(MobileMoEError, match=message) as caught:
        _made(text_source(folder / "a*", kind=kind), tmp_path / "o")
    assert str(folder) in str(caught.value)


def test_an_empty_file_is_reported_among_others(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"")
    (tmp_path / "b.jsonl").write_bytes(GOOD)
    with gzip.open(tmp_path / "c.jsonl.gz", "wb"):
        pass
    shards = _made(text_source(tmp_path / "*.jsonl*"), tmp_path / "o")
    assert [str(bad) for bad in shards.bad_shown] == [
        f"{tmp_path}/a.jsonl: record 0, byte 0: empty file",
        f"{tmp_path}/c.jsonl.gz: record 0, byte 0: empty file",
    ]


def test_a_truncated_gzip_gives_what_is_before_the_end(tmp_path: Path) -> None:
    rows = documents(4000)
    data = gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode())
    (tmp_path / "a.jsonl.gz").write_bytes(data[: len(data) // 2])
    write_jsonl(tmp_path / "b.jsonl", documents(5, seed=1))
    shards = _made(text_source(tmp_path / "*.jsonl*"), tmp_path / "o")
    (bad,) = shards.bad_shown
    assert bad.reason == "damaged from here to the end of the file"
    assert bad.place.file == f"{tmp_path}/a.jsonl.gz"
    whole = sum(len(json.dumps(row)) + 1 for row in rows[: bad.place.record])
    assert bad.place.byte == whole
    assert 1000 < bad.place.record < 3000
    assert shards.index.records == bad.place.record + 1 + 5


def test_a_damaged_row_group_is_skipped_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    texts = [row["text"] for row in documents(900)]
    pq.write_table(pa.table({"text": texts}), path, row_group_size=300, compression="snappy")
    chunk = pq.ParquetFile(path).metadata.row_group(1).column(0)
    data = bytearray(path.read_bytes())
    at = chunk.data_page_offset
    data[at : at + 60] = b"\xff" * 60
    path.write_bytes(data)
    shards = _made(text_source(path, kind="parquet"), tmp_path / "o")
    (bad,) = shards.bad_shown
    assert bad.reason == "damaged from here to the end of the row group"
    assert (bad.place.record, bad.place.byte) == (300, at)
    assert shards.index.records == 601


def test_bad_cells_of_parquet_are_skipped(tmp_path: Path) -> None:
    cells = pa.array([b"good", b"caf\xe9", None, b"also good"], pa.binary())
    strings = pa.Array.from_buffers(pa.string(), 4, cells.buffers(), null_count=1)
    pq.write_table(pa.table({"text": strings}), tmp_path / "a.parquet")
    shards = _made(text_source(tmp_path / "a.parquet", kind="parquet"), tmp_path / "o")
    assert [str(bad) for bad in shards.bad_shown] == [
        f"{tmp_path}/a.parquet: record 1: not UTF-8 (at byte 3 of the text)",
        f"{tmp_path}/a.parquet: record 2: field 'text' is not text (it is null)",
    ]


def test_bad_plain_texts_are_skipped(tmp_path: Path) -> None:
    for name, data in {"a": b"fine", "b": b"caf\xe9", "c": b"a\0b", "d": b"", "e": b" \n"}.items():
        (tmp_path / f"{name}.txt").write_bytes(data)
    source = text_source(tmp_path / "*.txt", kind="txt", text_field=None)
    shards = _made(source, tmp_path / "o")
    found = {Path(bad.place.file).stem: bad.reason for bad in shards.bad_shown}
    assert found == {
        "b": "not UTF-8",
        "c": "NUL character",
        "d": "empty file",
        "e": "the text is empty",
    }
    assert shards.index.records == 5


def test_too_many_bad_records_stop_early_and_name_the_first(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes((GOOD * 50 + b"oops\n") * 400)
    with pytest.raises(MobileMoEError, match=r"records are bad; allowed: 1\.00%") as caught:
        _made(text_source(path), tmp_path / "o", share=0.01)
    message = str(caught.value)
    assert f"the first: {path}: record 50, byte {50 * len(GOOD)}: not JSON" in message
    assert int(message.split(" of ")[1].split()[0]) < 2000  # it did not read all 20,400


def test_few_records_are_judged_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"oops\n" + GOOD * 99)
    assert _made(text_source(path), tmp_path / "o", share=0.01).index.bad == {"not JSON": 1}
    path.write_bytes(b"oops\noops\n" + GOOD * 98)
    with pytest.raises(MobileMoEError, match="2 of 100 records are bad"):
        _made(text_source(path), tmp_path / "p", share=0.01)


def test_a_hundred_bad_records_are_listed_and_all_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes((b"oops\n" + GOOD + b"[]\n") * 150)
    shards = _made(text_source(path), tmp_path / "o")
    assert shards.index.bad == {"not JSON": 150, "not a JSON object": 150}
    assert len(shards.bad_shown) == 100
    assert [bad.place.record for bad in shards.bad_shown[:4]] == [0, 2, 3, 5]


def test_a_source_without_a_usable_record_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"\n\n")
    with pytest.raises(MobileMoEError, match="no usable record"):
        _made(text_source(tmp_path / "a.jsonl"), tmp_path / "o", share=1)
