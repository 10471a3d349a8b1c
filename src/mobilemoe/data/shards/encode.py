"""A chunk of records as token ids: what one worker does for one chunk.

The form of documents and conversations is that of `data/tokens.py`, with the special tokens'
ids looked up in the tokenizer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from mobilemoe.data.chat import ChatFormat, largest_id, special_texts
from mobilemoe.data.documents import hash_point
from mobilemoe.data.sources import BadRecord, Raw, Sample, Turn, decode
from mobilemoe.recipe import Source


@dataclass(frozen=True)
class Encoded:
    """The samples of one chunk, one after the other, and its bad records.

    `tokens` is flat, `lengths` per sample; `spans` [n, 2] are the learnt ranges of
    conversations in `tokens`. `places` says which record of the chunk each sample is, `points`
    the hash of its unit. `bad` pairs a record's number in the chunk with the record.
    """

    tokens: NDArray[np.int64]
    lengths: NDArray[np.int64]
    spans: NDArray[np.int64]
    places: NDArray[np.int64]
    points: NDArray[np.uint64]
    bad: tuple[tuple[int, BadRecord], ...]
    records: int


class Encoder:
    """Tokenises chunks of one source; made once per worker."""

    def __init__(self, tokenizer_json: str, source: Source) -> None:
        tokenizer = Tokenizer.from_str(tokenizer_json)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True  # a text never makes a special token
        self._tokenizer = tokenizer
        self._source = source
        self._format = ChatFormat.of(tokenizer)
        self._special = re.compile("|".join(map(re.escape, special_texts(tokenizer))))
        self._headers: dict[str, list[int]] = {}
        self.largest_id = largest_id(tokenizer)

    def encode(self, chunk: Sequence[Raw]) -> Encoded:
        """Return the token ids of a chunk's good records and the list of its bad ones."""
        samples: list[tuple[int, Sample]] = []
        bad: list[tuple[int, BadRecord]] = []
        for number, raw in enumerate(chunk):
            found = raw if isinstance(raw, BadRecord) else self._check(decode(raw, self._source))
            if isinstance(found, BadRecord):
                bad.append((number, found))
            else:
                samples.append((number, found))
        ids, spans = self._framed([sample for _, sample in samples])
        lengths = np.array([len(part) for part in ids], np.int64)
        return Encoded(
            tokens=np.array([token for part in ids for token in part], np.int64),
            lengths=lengths,
            spans=_flat_spans(spans, lengths),
            places=np.array([number for number, _ in samples], np.int64),
            points=np.array([hash_point(s.unit) for _, s in samples], np.uint64),
            bad=tuple(bad),
            records=len(chunk),
        )

    def _check(self, sample: Sample | BadRecord) -> Sample | BadRecord:
        """Refuse a text that spells out a special token: it would end a turn or a text."""
        if isinstance(sample, BadRecord):
            return sample
        for text in [turn.content for turn in sample.turns] or [sample.text]:
            found = self._special.search(text)
            if found:
                detail = f"{found[0]} at character {found.start()}"
                return BadRecord(sample.place, "a special token spelled out", detail)
        return sample

    def _framed(
        self, samples: Sequence[Sample]
    ) -> tuple[list[list[int]], list[list[tuple[int, int]]]]:
        texts = [t for s in samples for t in ([turn.content for turn in s.turns] or [s.text])]
        rows = iter(self._tokenizer.encode_batch(texts, add_special_tokens=False))
        ids: list[list[int]] = []
        spans: list[list[tuple[int, int]]] = []
        for sample in samples:
            if sample.turns:
                contents = [next(rows).ids for _ in sample.turns]
                own, learnt = self._conversation(sample.turns, contents)
                spans.append(learnt)
            else:
                own = [self._format.begin, *next(rows).ids, self._format.end]
            ids.append(own)
        return ids, spans

    def _conversation(
        self, turns: Sequence[Turn], contents: Sequence[list[int]]
    ) -> tuple[list[int], list[tuple[int, int]]]:
        """Return the ids, and the range of each answer with the token that ends it."""
        ids, spans = [self._format.begin], []
        for turn, content in zip(turns, contents, strict=True):
            ids += self._header(turn.role)
            start = len(ids)
            ids += [*content, self._format.eot]
            if turn.role == "assistant":
                spans.append((start, len(ids)))
        return ids, spans

    def _header(self, role: str) -> list[int]:
        if role not in self._headers:
            name, gap = self._tokenizer.encode_batch([role, "\n\n"], add_special_tokens=False)
            frame = self._format
            self._headers[role] = [frame.header_start, *name.ids, frame.header_end, *gap.ids]
        return self._headers[role]


def _flat_spans(
    spans: Sequence[Sequence[tuple[int, int]]], lengths: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return spans relative to the samples as spans of the flat array."""
    starts = np.cumsum([0, *lengths])
    flat = [(s + a, s + b) for s, own in zip(starts, spans, strict=False) for a, b in own]
    assert all(a[1] <= b[0] for a, b in pairwise(flat))
    return np.array(flat, np.int64).reshape(-1, 2)
