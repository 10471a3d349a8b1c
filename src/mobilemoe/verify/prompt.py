"""The tokens that the columns compute: real text of four kinds, or seeded random ids."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, islice

import numpy as np

from mobilemoe.checkpoint import Checkpoint, Tokenizer
from mobilemoe.errors import MobileMoEError

# One passage each of knowledge, code, mathematics and chat: together they meet more experts than
# any one of them.
PASSAGES = (
    "The heart has four chambers. The right side sends blood to the lungs, where it takes up "
    "oxygen and gives off carbon dioxide; the left side sends it to the rest of the body.",
    "def merge(left, right):\n    out = []\n    while left and right:\n"
    "        side = left if left[0] <= right[0] else right\n        out.append(side.pop(0))\n"
    "    return out + left + right",
    "If 3x + 7 = 22, then 3x = 15 and x = 5. The area of a circle of radius 5 is 25 pi, about "
    "78.54; doubling the radius makes it four times as large.",
    "User: I slept badly and have a long day ahead. What should I do?\nAssistant: Drink some "
    "water, get ten minutes of daylight, and do the hardest task first.",
)


def prompt_ids(checkpoint: Checkpoint, tokens: int, seed: int) -> tuple[list[int], str]:
    """Return `tokens` ids for `checkpoint`, and what they are.

    With a usable tokenizer the passages share the tokens evenly, after one BOS; a passage that
    is too short starts again. Otherwise the ids are drawn with `seed`.
    """
    encoded = _encoded(checkpoint)
    if encoded is None:
        rng = np.random.default_rng(seed)
        ids = rng.integers(0, checkpoint.config.vocab_size, tokens).tolist()
        return ids, f"{tokens} random ids, seed {seed}"
    bos, passages = encoded
    share, extra = divmod(tokens - 1, len(passages))
    ids = [bos]
    for index, passage in enumerate(passages):
        ids += islice(cycle(passage), share + (index < extra))
    return ids, f"{tokens} tokens of knowledge, code, mathematics and chat"


def _encoded(checkpoint: Checkpoint) -> tuple[int, list[Sequence[int]]] | None:
    """Return BOS and the encoded passages; None without a tokenizer that fits the model."""
    if not (checkpoint.folder / "tokenizer.json").is_file():
        return None
    try:
        tokenizer = Tokenizer.from_folder(checkpoint.folder)
    except MobileMoEError:
        return None  # the tokenizer's own check says so
    passages: list[Sequence[int]] = [tokenizer.encode(text, add_bos=False) for text in PASSAGES]
    bos = checkpoint.config.bos_token_id
    largest = max(map(max, passages), default=0)
    usable = all(passages) and max(bos, largest) < checkpoint.config.vocab_size
    return (bos, passages) if usable else None
