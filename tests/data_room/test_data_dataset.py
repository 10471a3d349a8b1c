"""The built data set: both sides, its cache, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from mobilemoe.data import DOMAINS, IGNORED, Corpus, CorpusOptions, Dataset, build_dataset
from mobilemoe.data import dataset as dataset_module
from mobilemoe.data.cache import FILE_NAME
from mobilemoe.data.documents import is_held_out
from mobilemoe.data.tokens import ConversationSet
from mobilemoe.errors import MobileMoEError

TINY = {"math_documents": 300, "math_conversations": 60, "max_modules": 6, "vocab_size": 400}


def _equal(one: Dataset, other: Dataset) -> bool:
    same = one.sha256 == other.sha256 and one.statistics == other.statistics
    same &= one.tokenizer.to_str() == other.tokenizer.to_str()
    for side in ("train", "heldout"):
        a, b = getattr(one, side), getattr(other, side)
        same &= list(a) == list(b) or set(a) == set(b)
        for name in a:
            x, y = a[name], b[name]
            if isinstance(x, ConversationSet):
                parts = ("tokens", "offsets", "answers")
                same &= all(np.array_equal(getattr(x, p), getattr(y, p)) for p in parts)
            else:
                same &= x.dtype == y.dtype and np.array_equal(x, y)
    return same


def test_streams_hold_the_corpus(built: Dataset, corpus: Corpus) -> None:
    assert built.sha256 == corpus.sha256
    for side, held in (("train", False), ("heldout", True)):
        for domain in DOMAINS:
            own = [d for d in corpus.documents if d.domain == domain]
            texts = [d.text for d in own if is_held_out(d.unit) == held]
            stream = getattr(built, side)[domain]
            statistics = built.statistics[side][domain]
            assert statistics.documents == len(texts) > 0
            assert statistics.bytes == sum(len(t.encode()) for t in texts)
            assert statistics.tokens == len(stream)
            starts = np.flatnonzero(stream == 0)
            assert len(starts) == (stream == 1).sum() == len(texts)
            assert stream[0] == 0 and stream[-1] == 1
            decoded = built.tokenizer.decode(stream.tolist(), skip_special_tokens=True)
            assert decoded == "".join(texts)


def test_conversations_hold_all_kinds_in_every_part(built: Dataset) -> None:
    talks = built.train["instruct"]
    assert isinstance(talks, ConversationSet)
    kinds = built.statistics["train"]
    assert len(talks) == sum(kinds[domain].conversations for domain in DOMAINS)
    assert all(kinds[domain].conversations > 20 for domain in DOMAINS)
    assert all(built.statistics["heldout"][domain].conversations > 0 for domain in DOMAINS)


def test_heldout_batches_are_in_order_without_overlap(built: Dataset) -> None:
    batches = list(built.heldout_batches("math", 32, 4))
    targets = np.concatenate([batch.targets_BT.ravel() for batch in batches])
    assert np.array_equal(targets, built.heldout["math"][1 : len(targets) + 1])
    assert len(targets) > len(built.heldout["math"]) - 34
    assert all(batch.ids_BT.shape[0] == 4 for batch in batches[:-1])
    assert {domain for batch in batches for domain in batch.domains} == {"math"}
    limited = list(built.heldout_batches("math", 32, 4, max_tokens=170))
    assert [batch.ids_BT.shape[0] for batch in limited] == [4, 1]
    assert (limited[0].ids_BT == batches[0].ids_BT).all()


def test_heldout_instruct_batches_learn_answers_only(built: Dataset) -> None:
    batches = list(built.heldout_batches("instruct", 256, 4))
    learnt = sum(int((batch.targets_BT != IGNORED).sum()) for batch in batches)
    talks = built.heldout["instruct"]
    assert isinstance(talks, ConversationSet)
    fits = talks.lengths <= 256
    assert learnt == int((talks.lengths - talks.answers)[fits].sum())


def test_mixture_draws_from_the_training_side(built: Dataset) -> None:
    weights = {"code": 0.4, "knowledge": 0.2, "math": 0.2, "instruct": 0.2}
    mixture = built.mixture(weights, context=128, batch_size=10, seed=1)
    batch = mixture.batch(0)
    assert sorted(set(batch.domains)) == sorted(weights)
    row = batch.domains.index("code")
    windows = np.lib.stride_tricks.sliding_window_view(built.train["code"], 128)
    assert (windows == batch.ids_BT[row]).all(axis=1).sum() >= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("poetry", 32, 4), "allowed: code, knowledge, math, instruct"),
        (("math", 32, 0), "batch_size is 0"),
        (("math", 0, 4), "context is 0"),
        (("math", 32, 4, 31), "max_tokens is 31"),
    ],
)
def test_bad_heldout_requests_are_refused_at_once(
    built: Dataset, arguments: tuple, message: str
) -> None:
    with pytest.raises(MobileMoEError, match=message):
        built.heldout_batches(*arguments)


@pytest.mark.parametrize("field", ["seed", "math_documents", "math_conversations", "max_modules"])
def test_bad_counts_are_refused(field: str) -> None:
    with pytest.raises(MobileMoEError, match=field):
        CorpusOptions(**{field: -1})


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Dataset]:
    """Return a folder with a tiny cache, and the data set that was built for it."""
    folder = tmp_path_factory.mktemp("cache") / "deeper"
    return folder, build_dataset(folder, 1, **TINY)


def test_cache_gives_the_same_bits(cached: tuple[Path, Dataset]) -> None:
    folder, first = cached
    again = build_dataset(folder, 1, **TINY)
    assert not first.from_cache and again.from_cache
    assert _equal(first, again)
    assert [path.name for path in folder.iterdir()] == [FILE_NAME]  # no temporary file is left


def test_building_twice_gives_the_same_bits(cached: tuple[Path, Dataset]) -> None:
    stages: list[tuple[int, int]] = []
    rebuilt = build_dataset(
        None, 1, **TINY, progress=lambda _, done, total: stages.append((done, total))
    )
    assert not rebuilt.from_cache
    assert _equal(cached[1], rebuilt)
    assert stages == [(0, 3), (1, 3), (2, 3), (3, 3)]


def _flip_token(data: bytes) -> bytes:
    return data[:-100] + bytes([data[-100] ^ 1]) + data[-99:]


def _flip_statistic(data: bytes) -> bytes:
    place = data.index(b"documents")
    place = data.index(b": ", place) + 2
    return data[:place] + (b"9" if data[place : place + 1] != b"9" else b"8") + data[place + 1 :]


@pytest.mark.parametrize(
    "damage",
    [_flip_token, _flip_statistic, lambda data: data[: len(data) // 2], lambda data: b"{}"],
    ids=["token", "statistic", "truncated", "garbage"],
)
def test_damaged_cache_is_rebuilt(cached: tuple[Path, Dataset], tmp_path: Path, damage) -> None:  # type: ignore[no-untyped-def]
    folder, first = cached
    good = (folder / FILE_NAME).read_bytes()
    assert damage(good) != good
    (tmp_path / FILE_NAME).write_bytes(damage(good))
    rebuilt = build_dataset(tmp_path, 1, **TINY)
    assert not rebuilt.from_cache
    assert _equal(first, rebuilt)
    assert build_dataset(tmp_path, 1, **TINY).from_cache


def test_stale_cache_is_rebuilt(cached: tuple[Path, Dataset], tmp_path: Path) -> None:
    folder, first = cached
    (tmp_path / FILE_NAME).write_bytes((folder / FILE_NAME).read_bytes())
    other = build_dataset(tmp_path, 2, **TINY)
    assert not other.from_cache
    assert other.sha256 != first.sha256


def test_cache_is_readable_without_this_code(cached: tuple[Path, Dataset]) -> None:
    arrays = load_file(cached[0] / FILE_NAME)
    assert np.array_equal(arrays["train.math"], cached[1].train["math"])
    description = dataset_module._description(cached[1])
    assert json.loads(json.dumps(description)) == description
