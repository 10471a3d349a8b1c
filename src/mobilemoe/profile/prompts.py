"""What a benchmark feeds a model: texts as people write them, never one token over and over.

The routing of a mixture depends on what it reads: a repeated token keeps a few experts busy and
the rest of the file cold. So prompts are four kinds of real text (knowledge, code, maths, chat),
cycled to the length that is asked for; the repeated token is there for comparison.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from zlib import crc32

from mobilemoe.checkpoint import Checkpoint, Tokenizer

KNOWLEDGE = """\
A lighthouse has to be told from every other light on the coast, so each one keeps a rhythm of its
own. The chart gives it in a few letters: Fl(3) 20s means three flashes every twenty seconds. Early
keepers burned coal in iron baskets, which needed a ton of fuel on a long winter night and could
hardly be seen in rain. Oil lamps with a ring-shaped wick came next, and around 1820 a French
engineer replaced the heavy mirrors by rings of prisms that bend the light of a small flame into
one narrow beam. A lens of the first order stands taller than a man and floats on a bath of
mercury, so that a clockwork weight can turn it. Limestone towers were dovetailed stone by stone on
land, taken apart, and shipped to the reef in numbered pieces. Bees, to take a smaller engineer,
build hexagons because three walls that meet at 120 degrees need the least wax for the honey they
hold. A colony of forty thousand lets the temperature of its brood differ by barely a degree:
workers shiver their flight muscles when it is cold and fan drops of water when it is hot.
"""

CODE = '''\
from collections import deque


def shortest_path(grid: list[str], start: tuple[int, int], goal: tuple[int, int]) -> int | None:
    """Return the number of steps from start to goal through free cells, None if walled off."""
    height, width = len(grid), len(grid[0])
    distance = {start: 0}
    queue = deque([start])
    while queue:
        row, column = queue.popleft()
        if (row, column) == goal:
            return distance[goal]
        for dr, dc in ((0, 1), (1, 0), (0, -1), (-1, 0)):
            cell = (row + dr, column + dc)
            inside = 0 <= cell[0] < height and 0 <= cell[1] < width
            if inside and grid[cell[0]][cell[1]] != "#" and cell not in distance:
                distance[cell] = distance[row, column] + 1
                queue.append(cell)
    return None


static size_t trim(char *text) {
    size_t length = strlen(text);
    while (length > 0 && isspace((unsigned char)text[length - 1])) text[--length] = 0;
    return length;
}

SELECT city, COUNT(*) AS orders, ROUND(AVG(total), 2) AS mean_total
FROM orders JOIN customers USING (customer_id)
WHERE placed_at >= '2024-01-01' GROUP BY city HAVING COUNT(*) > 10 ORDER BY orders DESC;
'''

MATHS = """\
Problem. A train leaves at 8:40 and covers 210 km at 84 km/h, stops for 12 minutes, and goes on for
another 95 km at 76 km/h. When does it arrive? Solution. The first part takes 210 / 84 = 2.5 hours,
that is 150 minutes. The second takes 95 / 76 = 1.25 hours, 75 minutes. Together with the stop that
makes 150 + 12 + 75 = 237 minutes, so the train arrives at 12:37.
Problem. For which integers n is n^2 + 3n + 5 divisible by 121? Solution. Modulo 11 we have
n^2 + 3n + 5 = n^2 - 8n + 16 = (n - 4)^2, so n = 11k + 4 for some integer k. Putting that in gives
121 k^2 + 88k + 16 + 33k + 12 + 5 = 121 k^2 + 121 k + 33, and 33 is no multiple of 121. There is no
such n. Problem. Two dice are thrown until their sum is 7 or 9. Which is likelier to come first?
Six of the thirty-six pairs give 7 and four give 9, so 7 comes first with probability 6 / 10.
"""

CHAT = """\
user: My sourdough has been in the fridge for three weeks and there is a grey liquid on top. Is it
dead? assistant: Most likely not. The liquid is mostly alcohol and water; it shows that the starter
is hungry. Pour it off, keep two spoonfuls from the bottom, and feed them with equal weights of
flour and water. If it bubbles within a day, go on as before. Pink or orange streaks, or fuzz, are
another matter: then throw it away. user: And how often do I feed it if I bake once a week?
assistant: Once, the evening before you bake, and leave it at room temperature overnight. user: ok
thanks!! one more: can I use rye? assistant: Yes. Rye ferments faster, so start with a fifth of the
flour, and expect a stickier dough. user: Could you write that down as a short list for my fridge
door? assistant: Of course: 1. Pour off the liquid. 2. Keep two spoonfuls. 3. Feed 50 g flour and
50 g water. 4. Wait until it has doubled. 5. Bake, and keep two spoonfuls again.
"""

TEXTS = {"knowledge": KNOWLEDGE, "code": CODE, "maths": MATHS, "chat": CHAT}
SOURCE_TOKENIZER = "own texts (knowledge, code, maths, chat) with the checkpoint's tokenizer"
SOURCE_HASHED = "own texts (knowledge, code, maths, chat), words hashed over the vocabulary"

_WORDS = re.compile(r" ?\w+| ?[^\w\s]+|\s+")


def real_ids(checkpoint: Checkpoint, count: int) -> list[int]:
    """Return the ids of the texts, cycled to `count`.

    With the checkpoint's tokenizer.json if it has one, else `hashed_ids`.

    Raises:
        CheckpointError: if there is a tokenizer.json that is none.
    """
    if has_tokenizer(checkpoint.folder):
        tokenizer = Tokenizer.from_folder(checkpoint.folder)
        ids = [
            token_id
            for text in TEXTS.values()
            for token_id in tokenizer.encode(text, add_bos=False)
            if token_id < checkpoint.config.vocab_size
        ]
        if ids:
            return _cycled(ids, count)
    return _cycled(hashed_ids("".join(TEXTS.values()), checkpoint.config.vocab_size), count)


def prompt_source(checkpoint: Checkpoint) -> str:
    """Say in words where the ids of `real_ids` come from."""
    return SOURCE_TOKENIZER if has_tokenizer(checkpoint.folder) else SOURCE_HASHED


def has_tokenizer(folder: Path) -> bool:
    """Whether the folder has a tokenizer.json."""
    return (folder / "tokenizer.json").is_file()


def hashed_ids(text: str, vocab_size: int) -> list[int]:
    """Return one id for each word of `text`: the same word, the same id; spread over all ids."""
    return [crc32(word.encode()) % vocab_size for word in _WORDS.findall(text)]


def repeated_ids(ids: Sequence[int], count: int) -> list[int]:
    """Return the first of `ids`, `count` times."""
    return [ids[0]] * count


def _cycled(ids: Sequence[int], count: int) -> list[int]:
    return [ids[index % len(ids)] for index in range(count)]
