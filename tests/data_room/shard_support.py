"""A small tokenizer and small files for the tests of sources and shards."""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path

from mobilemoe.data import train_tokenizer
from mobilemoe.recipe import Source

_SENTENCE = (
    "the a model router expert token of and in for each shard river stone blue walks under seven "
    "night glass metal paper question answer number light small wide sings"
)
WORDS = tuple(_SENTENCE.split())


@cache
def tokenizer_json() -> str:
    """Return a tokenizer trained on the words above."""
    texts = [text(random.Random(seed), 40) for seed in range(60)]
    return train_tokenizer(texts, 300).to_str()


def text(rng: random.Random, words: int) -> str:
    """Return some words."""
    return " ".join(rng.choice(WORDS) for _ in range(words))


def documents(count: int, seed: int = 0, words: int = 30) -> list[dict[str, str]]:
    """Return rows with a text of 1 to `words` words."""
    rng = random.Random(seed)
    return [{"text": f"{i} {text(rng, rng.randint(1, words))}"} for i in range(count)]


def talks(count: int, seed: int = 0) -> list[dict[str, list[dict[str, str]]]]:
    """Return rows with conversations of one to three exchanges, some with a system turn."""
    rng = random.Random(seed)
    rows = []
    for i in range(count):
        turns = [{"role": "system", "content": text(rng, 4)}] if i % 3 == 0 else []
        for turn in range(rng.randint(1, 3)):
            turns.append({"role": "user", "content": f"{i} {turn} {text(rng, 6)}"})
            turns.append({"role": "assistant", "content": text(rng, rng.randint(1, 9))})
        rows.append({"messages": turns})
    return rows


def write_jsonl(path: Path, rows: list[dict]) -> Path:
    """Write rows as lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def text_source(path: Path | str, **fields: object) -> Source:
    """Return a jsonl source of documents."""
    given = {"name": "web", "kind": "jsonl", "domain": "web", "text_field": "text", **fields}
    return Source(path=str(path), licence="CC0", **given)


def talk_source(path: Path | str, **fields: object) -> Source:
    """Return a jsonl source of conversations."""
    given = {"name": "chat", "text_field": None, "messages_field": "messages", **fields}
    return text_source(path, **given)


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file of a folder of shards."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
