"""Shards: the same bytes for any workers, any kill, any way to get there; damage is noticed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path
from threading import Thread

import numpy as np
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
from tokenizers import Tokenizer

from mobilemoe.data import is_held_out
from mobilemoe.data.shards import PrepareOptions, ShardSet, filling, open_shards, prepare_source
from mobilemoe.data.tokens import encode_documents
from mobilemoe.errors import MobileMoEError
from mobilemoe.recipe import Source

SMALL = PrepareOptions(shard_tokens=3000, heldout_tokens=500)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three files with 900 documents; the third has those of the first again."""
    folder = tmp_path_factory.mktemp("rows")
    for i in range(3):
        write_jsonl(folder / f"{i}.jsonl", documents(300, seed=i % 2))
    return folder


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "CHUNK_RECORDS", 16)


def _made(source: Source, folder: Path, options: PrepareOptions) -> ShardSet:
    return prepare_source(source, tokenizer_json(), folder, workers=0, options=options)


def _prepare(rows: Path, folder: Path, workers: int = 0, limit: int | None = None) -> ShardSet:
    source = text_source(rows / "*.jsonl")
    return prepare_source(source, tokenizer_json(), folder, limit, workers, options=SMALL)


@pytest.fixture(scope="module")
def whole(rows: Path, tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    """The three files, prepared in one go."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filling, "CHUNK_RECORDS", 16)
        return _prepare(rows, tmp_path_factory.mktemp("whole"))


def _texts(rows: Path) -> list[str]:
    lines = [line for i in range(3) for line in (rows / f"{i}.jsonl").read_text().splitlines()]
    return [json.loads(line)["text"] for line in lines]


def test_shards_hold_every_document_in_order_on_its_side(rows: Path, whole: ShardSet) -> None:
    tokenizer = Tokenizer.from_str(tokenizer_json())
    texts = _texts(rows)
    candidates = [text for text in texts if is_held_out(text)]
    held: list[str] = []
    for text in candidates:
        if text not in held and len(encode_documents(tokenizer, held)) < SMALL.heldout_tokens:
            held.append(text)
    assert 10 < len(held) < len(candidates)
    kept = [text for text in texts if text not in held]
    for side, own in (("train", kept), ("heldout", held)):
        stream = whole.stream(side)
        expected = encode_documents(tokenizer, own)
        assert len(stream) == len(expected)
        assert (stream[:] == expected).all()
    assert len(whole.index.shards) > 3
    assert whole.index.exhausted and whole.index.records == 900


def test_a_slice_is_that_of_one_array(whole: ShardSet) -> None:
    stream = whole.stream("train")
    array = stream[:].copy()
    rng = np.random.default_rng(0)
    for start, stop in rng.integers(0, len(array) + 50, (200, 2)):
        assert (stream[start:stop] == array[start:stop]).all()
    assert stream[-10:].tolist() == array[-10:].tolist()
    assert len(stream[5:5]) == 0
    edges = np.cumsum([shard.train.tokens for shard in whole.index.shards])
    for edge in edges:  # where one file ends and the next begins
        for start, stop in ((edge, edge + 9), (edge - 9, edge), (edge - 1, edge + 1)):
            assert (stream[start:stop] == array[start:stop]).all()


@pytest.mark.parametrize("workers", [1, 3])
def test_the_bytes_do_not_depend_on_the_number_of_workers(
    rows: Path, whole: ShardSet, tmp_path: Path, workers: int
) -> None:
    _prepare(rows, tmp_path / "out", workers)
    assert contents(tmp_path / "out") == contents(whole.folder)


class _Killed(BaseException):
    """What stops a preparation between two chunks."""


@pytest.mark.parametrize("chunk", [1, 9, 30, 56])
def test_an_interrupted_preparation_goes_on_to_the_same_bytes(
    rows: Path, whole: ShardSet, tmp_path: Path, chunk: int
) -> None:
    source, seen = text_source(rows / "*.jsonl"), []

    def stop(label: str, done: int, total: int) -> None:
        seen.append(done)
        if len(seen) == chunk:
            raise _Killed

    with pytest.raises(_Killed):
        prepare_source(source, tokenizer_json(), tmp_path / "out", None, 0, stop, SMALL)
    if chunk > 20:
        with pytest.raises(MobileMoEError, match="interrupted after"):
            open_shards(tmp_path / "out")
        assert len(contents(tmp_path / "out")) > 5
    (tmp_path / "out" / "train-00077.tokens").write_bytes(b"left by a killed writer")
    (tmp_path / "out" / ".index.json.x.tmp").write_bytes(b"left by a killed writer")
    before = len(seen)
    prepare_source(source, tokenizer_json(), tmp_path / "out", None, 0, stop, SMALL)
    assert contents(tmp_path / "out") == contents(whole.folder)
    assert len(seen) - before < 57 + 1 - (chunk - 20 if chunk > 20 else 0)


def test_kill_9_at_any_time_leaves_what_resumes_to_the_same_bytes(
    rows: Path, whole: ShardSet, tmp_path: Path
) -> None:
    script = tmp_path / "prepare.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from pathlib import Path\n"
        "from shard_support import *\n"
        "from mobilemoe.data.shards import *\n"
        "from mobilemoe.data.shards import filling\n"
        "if __name__ == '__main__':\n"
        "    filling.CHUNK_RECORDS = 16\n"
        f"    source, json = text_source({str(rows / '*.jsonl')!r}), tokenizer_json()\n"
        "    options = PrepareOptions(shard_tokens=3000, heldout_tokens=500)\n"
        "    def slowly(*_):\n"
        "        import time; time.sleep(0.01)\n"
        "    prepare_source(source, json, Path(sys.argv[1]), None, 1, slowly, options)\n"
    )
    out = tmp_path / "out"
    for wanted in (2, 6):
        child = subprocess.Popen([sys.executable, script, out], start_new_session=True)
        while len(list(out.glob("train-*.tokens"))) < wanted and child.poll() is None:
            time.sleep(0.005)
        os.kill(child.pid, signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
        _no_process_left_in(child.pid)
    _prepare(rows, out)
    assert contents(out) == contents(whole.folder)


def _no_process_left_in(session: int) -> None:
    """Wait until the workers of a killed preparation are gone; it is their own doing."""
    for _ in range(600):
        alive = [p for p in Path("/proc").glob("[0-9]*/stat") if _session_of(p) == session]
        if not alive:
            return
        time.sleep(0.05)
    pytest.fail(f"workers outlived their parent: {alive}")


def _session_of(stat: Path) -> int:
    try:
        fields = stat.read_text().rpartition(")")[2].split()
    except OSError:
        return -1
    return -1 if fields[0] == "Z" else int(fields[3])


def test_another_limit_gives_what_that_limit_alone_gives(rows: Path, tmp_path: Path) -> None:
    for limit in (4000, 9000, None, 9000, 2500):
        shards = _prepare(rows, tmp_path / "one", limit=limit)
        fresh = _prepare(rows, tmp_path / f"fresh {limit}", limit=limit)
        assert contents(tmp_path / "one") == contents(fresh.folder)
        if limit is not None:
            assert limit <= shards.index.train_tokens < limit + 110
            assert not shards.index.exhausted


def test_a_source_shorter_than_the_limit_is_not_prepared_again(
    rows: Path, whole: ShardSet, tmp_path: Path
) -> None:
    _prepare(rows, tmp_path / "out", limit=10**9)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("train*")}
    _prepare(rows, tmp_path / "out")
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("train*")}
    assert contents(tmp_path / "out") == contents(whole.folder)


def test_a_held_out_text_is_never_trained_on(tmp_path: Path) -> None:
    once = documents(500)
    path = write_jsonl(tmp_path / "a.jsonl", once * 3)
    options = PrepareOptions(shard_tokens=3000, heldout_tokens=300)
    shards = prepare_source(
        text_source(path), tokenizer_json(), tmp_path / "o", workers=0, options=options
    )
    tokenizer = Tokenizer.from_str(tokenizer_json())
    held = tokenizer.decode_batch(_split(shards.stream("heldout")[:]))
    trained = tokenizer.decode_batch(_split(shards.stream("train")[:]))
    assert 3 < len(held) == len(set(held))
    assert not set(held) & set(trained)
    repeats = sum(shard.repeats for shard in shards.index.shards)
    assert repeats == 2 * len(held)
    assert len(held) + len(trained) + repeats == 1500


def _split(ids: np.ndarray) -> list[list[int]]:
    return [part.tolist() for part in np.split(ids, np.flatnonzero(ids == 1) + 1)[:-1]]


def test_conversations_keep_every_answer_and_only_those(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", talks(300))
    options = PrepareOptions(shard_tokens=8000, heldout_tokens=10**6)
    shards = prepare_source(
        talk_source(path), tokenizer_json(), tmp_path / "o", workers=0, options=options
    )
    tokenizer = Tokenizer.from_str(tokenizer_json())
    rows = [r["messages"] for r in talks(300)]
    units = [next(t["content"] for t in turns if t["role"] == "user") for turns in rows]
    for side, wanted in (("train", False), ("heldout", True)):
        stream = shards.stream(side)
        own = [t for t, unit in zip(rows, units, strict=True) if is_held_out(unit) == wanted]
        assert len(stream) == len(own) > 5
        learnt_lengths = stream.learnt
        for i, turns in enumerate(own):
            ids, learnt = stream.conversation(i)
            assert len(ids) == stream.lengths[i]
            assert learnt.sum() == learnt_lengths[i]
            expected = "<|begin_of_text|>" + "".join(
                f"<|header_start|>{t['role']}<|header_end|>\n\n{t['content']}<|eot|>" for t in turns
            )
            assert tokenizer.decode(ids.tolist(), skip_special_tokens=False) == expected
            answers = "".join(f"{t['content']}<|eot|>" for t in turns if t["role"] == "assistant")
            assert tokenizer.decode(ids[learnt].tolist(), skip_special_tokens=False) == answers
    assert len(shards.index.shards) > 2


def test_wide_vocabularies_take_four_bytes(rows: Path, tmp_path: Path) -> None:
    wide = json.loads(tokenizer_json())
    wide["model"]["vocab"]["nowhere"] = 70_000
    shards = prepare_source(
        text_source(rows / "0.jsonl"), json.dumps(wide), tmp_path / "o", workers=0, options=SMALL
    )
    size = (tmp_path / "o" / "train-00000.tokens").stat().st_size
    assert size == 4 * shards.index.shards[0].train.tokens
    narrow = prepare_source(
        text_source(rows / "0.jsonl"), tokenizer_json(), tmp_path / "n", workers=0, options=SMALL
    )
    assert (shards.stream("train")[:] == narrow.stream("train")[:]).all()


def _damaged(whole: ShardSet, folder: Path) -> Path:
    folder.mkdir()
    for name, data in contents(whole.folder).items():
        (folder / name).write_bytes(data)
    return folder


def test_a_truncated_or_missing_file_is_named_with_its_end(whole: ShardSet, tmp_path: Path) -> None:
    folder = _damaged(whole, tmp_path / "d")
    for name in ("train-00003.tokens", "train-00000.offsets", "heldout-00001.points"):
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[:-3])
        with pytest.raises(MobileMoEError, match=f"{name}: ends at byte {len(data) - 3}"):
            open_shards(folder)
        (folder / name).unlink()
        with pytest.raises(MobileMoEError, match=f"{name}: cannot be read"):
            open_shards(folder)
        (folder / name).write_bytes(data)
    open_shards(folder)


def test_every_flipped_byte_of_the_index_is_noticed(whole: ShardSet, tmp_path: Path) -> None:
    folder = _damaged(whole, tmp_path / "d")
    path = folder / "index.json"
    data = path.read_bytes()
    for at in range(0, len(data), max(1, len(data) // 60)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x11]) + data[at + 1 :])
        with pytest.raises(MobileMoEError, match=r"index.json: damaged at byte \d+"):
            open_shards(folder)
    path.write_bytes(data[:-1])
    with pytest.raises(MobileMoEError, match=r"index.json: damaged at byte \d+"):
        open_shards(folder)


def test_a_flipped_byte_of_a_shard_is_found_on_request(
    whole: ShardSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _damaged(whole, tmp_path / "d")
    path = folder / "train-00002.tokens"
    data = bytearray(path.read_bytes())
    data[4000] ^= 1
    path.write_bytes(data)
    shards = open_shards(folder)
    with pytest.raises(MobileMoEError, match=r"train-00002.tokens: damaged at byte 0 \(within"):
        shards.verify()
    with pytest.raises(MobileMoEError, match=r"train-00002\.tokens"):
        open_shards(folder, verify=True)
    open_shards(whole.folder, verify=True)


def test_an_impossible_id_is_refused_with_its_offset(whole: ShardSet, tmp_path: Path) -> None:
    folder = _damaged(whole, tmp_path / "d")
    path = folder / "train-00001.tokens"
    data = bytearray(path.read_bytes())
    data[2001] = 0xFF
    path.write_bytes(data)
    stream = open_shards(folder).stream("train")
    with pytest.raises(MobileMoEError, match=r"train-00001.tokens: damaged at byte 2000: id"):
        stream[:]


def test_other_tokenizers_sources_and_settings_are_refused(
    rows: Path, whole: ShardSet, tmp_path: Path
) -> None:
    open_shards(whole.folder, sha256(tokenizer_json().encode()).hexdigest())
    with pytest.raises(MobileMoEError, match="made with tokenizer"):
        open_shards(whole.folder, "0" * 64)
    folder = _damaged(whole, tmp_path / "d")
    source = text_source(rows / "*.jsonl")
    with pytest.raises(MobileMoEError, match="another tokenizer"):
        prepare_source(source, tokenizer_json() + " ", folder, workers=0, options=SMALL)
    with pytest.raises(MobileMoEError, match="another source: path, files"):
        prepare_source(
            text_source(rows / "0.jsonl"), tokenizer_json(), folder, workers=0, options=SMALL
        )
    with pytest.raises(MobileMoEError, match="another shard_tokens"):
        prepare_source(source, tokenizer_json(), folder, workers=0, options=PrepareOptions(5, 500))
    assert contents(folder) == contents(whole.folder)


def test_a_second_preparation_of_a_folder_waits_for_the_first(
    rows: Path, whole: ShardSet, tmp_path: Path
) -> None:
    second = Thread(target=_prepare, args=(rows, tmp_path / "o"))
    done: list[bool] = []

    def start(label: str, tokens: int, total: int) -> None:
        if not done:
            second.start()
        done.append(second.is_alive())

    source = text_source(rows / "*.jsonl")
    prepare_source(source, tokenizer_json(), tmp_path / "o", None, 0, start, SMALL)
    second.join()
    assert all(done)
    assert contents(tmp_path / "o") == contents(whole.folder)


def test_bad_numbers_are_refused(rows: Path, tmp_path: Path) -> None:
    with pytest.raises(MobileMoEError, match="max_tokens is 0"):
        _prepare(rows, tmp_path, limit=0)
    with pytest.raises(MobileMoEError, match="workers is -1"):
        _prepare(rows, tmp_path, workers=-1)
    with pytest.raises(MobileMoEError, match="max_bad_share is 2"):
        PrepareOptions(max_bad_share=2)
