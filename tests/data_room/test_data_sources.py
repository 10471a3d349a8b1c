"""Sources: the same records from every format, each with its place, from any place on."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shard_support import (
    contents,
    documents,
    talk_source,
    talks,
    text_source,
    tokenizer_json,
    write_jsonl,
)

from mobilemoe.data.shards import PrepareOptions, filling, prepare_source
from mobilemoe.data.sources import (
    BadRecord,
    Sample,
    read_raw,
    read_samples,
    source_identity,
    text_lines,
)
from mobilemoe.errors import MobileMoEError
from mobilemoe.recipe import Source

ROWS = documents(700)
TALKS = talks(60)


def _write_gzip(path: Path, rows: list[dict]) -> None:
    path.write_bytes(gzip.compress(write_jsonl(path.with_suffix(""), rows).read_bytes()))
    path.with_suffix("").unlink()


def _write_zstd(path: Path, rows: list[dict]) -> None:
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    with pa.output_stream(str(path), compression="zstd") as file:
        file.write(data)


def _write_parquet(path: Path, rows: list[dict]) -> None:
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=130)


WRITERS = {
    "a.jsonl": ("jsonl", write_jsonl),
    "a.jsonl.gz": ("jsonl", _write_gzip),
    "a.jsonl.zst": ("jsonl", _write_zstd),
    "a.parquet": ("parquet", _write_parquet),
}


def _source(name: str, folder: Path) -> Source:
    kind, write = WRITERS[name]
    write(folder / name, ROWS[:400])
    write(folder / f"b{name}", ROWS[400:])
    return text_source(folder / f"*{name}", kind=kind)


def _samples(source: Source) -> list[Sample]:
    found = list(read_samples(source))
    assert not any(isinstance(sample, BadRecord) for sample in found)
    return found


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_texts_in_order(name: str, tmp_path: Path) -> None:
    samples = _samples(_source(name, tmp_path))
    assert [sample.text for sample in samples] == [row["text"] for row in ROWS]
    places = [(Path(s.place.file).name, s.place.record) for s in samples]
    assert places == [(name, i) for i in range(400)] + [(f"b{name}", i) for i in range(300)]


@pytest.mark.parametrize("name", WRITERS)
def test_reading_goes_on_at_any_place(name: str, tmp_path: Path) -> None:
    source = _source(name, tmp_path)
    everything = list(read_raw(source))
    for number in (0, 1, 129, 130, 131, 399, 400, 401, 555, 699):
        assert list(read_raw(source, everything[number].place)) == everything[number:]


def test_offsets_are_those_of_the_lines(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": "é ü"}, {"text": "漢字"}, {"text": "a"}])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n\n"))
    data = path.read_bytes()
    samples = _samples(text_source(path))
    assert [sample.text for sample in samples] == ["é ü", "漢字", "a"]
    for sample in samples[1:]:
        assert data[sample.place.byte :].startswith(b'{"text"')
        assert data[: sample.place.byte].count(b"\n") == sample.place.record


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_conversations_have_all_their_turns(name: str, tmp_path: Path) -> None:
    kind, write = WRITERS[name]
    write(tmp_path / name, TALKS)
    samples = _samples(talk_source(tmp_path / name, kind=kind))
    turns = [[(t.role, t.content) for t in sample.turns] for sample in samples]
    assert turns == [[(t["role"], t["content"]) for t in row["messages"]] for row in TALKS]
    assert {len(own) % 2 for own in turns} == {0, 1}  # with and without a system turn
    assert all(s.unit == next(t.content for t in s.turns if t.role == "user") for s in samples)


def test_other_spellings_of_conversations(tmp_path: Path) -> None:
    path = write_jsonl(
        tmp_path / "a.jsonl",
        [
            {
                "c": [
                    {"from": "human", "value": " hi "},
                    {"from": "gpt", "value": "\nhello"},
                    {"from": "human", "value": "bye"},
                ],
                "q": "1 + 1?",
                "a": "2",
            },
        ],
    )
    (sample,) = _samples(talk_source(path, messages_field="c"))
    found = [(turn.role, turn.content) for turn in sample.turns]
    assert found == [("user", "hi"), ("assistant", "hello"), ("user", "bye")]
    (sample,) = _samples(talk_source(path, messages_field="q -> a"))
    assert [(t.role, t.content) for t in sample.turns] == [("user", "1 + 1?"), ("assistant", "2")]
    (sample,) = _samples(talk_source(path, messages_field="c->a"))
    assert sample.turns[-1].content == "2" and len(sample.turns) == 4


def test_a_text_file_is_a_document_and_a_long_one_is_cut_at_blank_lines(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\ntwo\n")
    paragraphs = [f"{i} " + "word " * 300 + "\n\n" for i in range(60)]
    (tmp_path / "b.txt").write_text("".join(paragraphs))
    samples = _samples(text_source(tmp_path / "*.txt", kind="txt", text_field=None))
    assert samples[0].text == "one\n\ntwo\n"
    long = samples[1:]
    assert "".join(sample.text for sample in long) == "".join(paragraphs)
    assert len(long) > 3
    for sample in long[:-1]:
        assert sample.text.endswith("\n\n")
        assert text_lines.PIECE_BYTES <= len(sample.text) < text_lines.PIECE_BYTES + 1600
    data = (tmp_path / "b.txt").read_text()
    assert all(data[s.place.byte :].startswith(s.text) for s in long)
    assert [sample.place.record for sample in long] == list(range(len(long)))


def test_a_text_without_blank_lines_is_cut_at_line_ends(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("".join(f"line {i}\n" for i in range(20_000)))
    source = text_source(tmp_path / "a.txt", kind="txt", text_field=None)
    samples = _samples(source)
    assert len(samples) == 4
    assert all(sample.text.endswith("\n") for sample in samples)
    raw = list(read_raw(source))
    assert list(read_raw(source, raw[1].place)) == raw[1:]


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.parquet"])
def test_every_format_resumes_to_the_same_shards(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filling, "CHUNK_RECORDS", 16)
    source = _source(name, tmp_path)
    options = PrepareOptions(shard_tokens=2000, heldout_tokens=300)
    calls = []

    def stop(*seen: object) -> None:
        calls.append(seen)
        if len(calls) == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_source(source, tokenizer_json(), tmp_path / "o", None, 0, stop, options)
    assert len(contents(tmp_path / "o")) > 6
    prepare_source(source, tokenizer_json(), tmp_path / "o", None, 0, stop, options)
    assert len(calls) < 30 + 44
    prepare_source(source, tokenizer_json(), tmp_path / "p", None, 0, options=options)
    assert contents(tmp_path / "o") == contents(tmp_path / "p")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder laid out as a data set of the hub, and no network."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = tmp_path / "hub"
    folder.mkdir()
    write_jsonl(folder / "train-0.jsonl", ROWS[:300])
    write_jsonl(folder / "train-1.jsonl", ROWS[300:500])
    write_jsonl(folder / "test-0.jsonl", ROWS[500:])
    return folder


def test_a_data_set_is_streamed_split_by_split_and_goes_on_anywhere(hub: Path) -> None:
    source = text_source(hub, kind="hf")
    samples = _samples(source)
    assert [sample.text for sample in samples] == [row["text"] for row in ROWS[:500]]
    assert str(samples[7].place) == f"hf:{hub}/default/train: record 7"
    rest = list(read_raw(source, samples[310].place))
    assert rest == list(read_raw(source))[310:]
    tests = _samples(text_source(hub, kind="hf", split="test"))
    assert [sample.text for sample in tests] == [row["text"] for row in ROWS[500:]]


def test_a_data_set_becomes_shards(hub: Path, tmp_path: Path) -> None:
    shards = prepare_source(text_source(hub, kind="hf"), tokenizer_json(), tmp_path / "o", None, 0)
    local = text_source(hub / "train-*.jsonl")
    twin = prepare_source(local, tokenizer_json(), tmp_path / "p", None, 0)
    assert (shards.stream("train")[:] == twin.stream("train")[:]).all()


def test_what_the_hub_does_not_have_is_said_plainly(hub: Path) -> None:
    with pytest.raises(MobileMoEError, match=r"source web: cannot open hf:.*/default/nowhere"):
        _samples(text_source(hub, kind="hf", split="nowhere"))
    with pytest.raises(MobileMoEError, match=r"cannot open hf:no-one/nothing/default/train") as e:
        _samples(text_source("no-one/nothing", kind="hf"))
    assert e.value.hint


def test_missing_libraries_are_named_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.parquet").write_bytes(b"")
    (tmp_path / "a.jsonl.zst").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "datasets", None)
    for path, kind in (("a.parquet", "parquet"), ("a.jsonl.zst", "jsonl"), ("a/b", "hf")):
        path = path if kind == "hf" else tmp_path / path
        with pytest.raises(MobileMoEError, match=r"needs (pyarrow|datasets)") as caught:
            list(read_raw(text_source(path, kind=kind)))
        assert caught.value.hint == 'pip install "mobilemoe[train]"'


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "txt"},
        {"text_field": None},
        {"messages_field": "m"},
        {"kind": "parquet", "text_field": ""},
        {"kind": "embedded", "path": "code", "text_field": None},
    ],
)
def test_sources_that_do_not_fit_their_kind_are_refused(fields: dict, tmp_path: Path) -> None:
    with pytest.raises(MobileMoEError):
        source_identity(text_source(**{"path": tmp_path / "a", **fields}))
