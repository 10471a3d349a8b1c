"""Tokenizers for tests: the synthetic one, and one as large as the released one."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer as Backend

from mobilemoe.checkpoint import Tokenizer, synthetic_tokenizer_json
from mobilemoe.checkpoint.byte_level import spell
from mobilemoe.checkpoint.goldens import RELEASED_IDS
from mobilemoe.config import ModelConfig

NANO, S = ModelConfig.preset("nano"), ModelConfig.preset("S")
GOLDEN_PIECES = ("Hello", ",", " Mobile", "Mo", "E", "!")


def synthetic(config: ModelConfig = S) -> Tokenizer:
    return Tokenizer(Backend.from_str(synthetic_tokenizer_json(config)))


def as_large_as_released() -> dict:
    """Return a tokenizer.json of 128,256 tokens that gives the released ids where they are known.

    Ids without meaning have tokens that no text can produce.
    """
    document = json.loads(synthetic_tokenizer_json(S))
    model = document["model"]
    (ids,) = RELEASED_IDS.values()
    known = {spell(p.encode()): i for p, i in zip(GOLDEN_PIECES, ids[1:], strict=True)}
    word = spell(b" Mobile")
    steps = {word[:end]: 100_000 + end for end in range(3, len(word))}
    kept = {t: i for t, i in model["vocab"].items() if i < 256 or i >= 128_000}
    vocabulary = {**kept, **known, **steps}
    taken = set(vocabulary.values())
    vocabulary |= {f"no text {i}": i for i in range(128_000) if i not in taken}
    model["vocab"] = vocabulary
    model["merges"] = [["M", "o"], [word[0], "Mo"]]
    model["merges"] += [[word[:end], word[end]] for end in range(3, len(word))]
    return document


def write_tokenizer(folder: Path, document: str | dict, **settings: object) -> Path:
    folder.mkdir(exist_ok=True)
    text = document if isinstance(document, str) else json.dumps(document)
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder
