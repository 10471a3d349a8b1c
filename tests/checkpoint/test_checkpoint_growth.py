"""Goal R6: time grows with the length of the text and not with its square.

The stream's work is counted in test_checkpoint_text_stream. Encoding and decoding are the work of
the tokenizers library, which cannot be counted: there CPU time is compared, the least of several
runs. 16 times the text may take 64 times as long (measured: 16 to 35); a quadratic algorithm would
take 256 times as long.
"""

from __future__ import annotations

import random
import time

import pytest
from tokenizer_support import synthetic

SIZE, GROWTH, SLACK = 6_000, 16, 4
TOKENIZER = synthetic()


def mixed(length: int) -> str:
    """Random characters of one to four bytes."""
    draw = random.Random(0)
    ranges = ((0x20, 0x7F), (0xA0, 0x800), (0x800, 0xD800), (0x10000, 0x110000))
    return "".join(chr(draw.randrange(*draw.choice(ranges))) for _ in range(length))


TEXTS = {
    "one letter": lambda n: "a" * n,
    "one word": lambda n: "the" * (n // 3),
    "spaces": lambda n: " " * n,
    "spaces before a letter": lambda n: " " * n + "x",
    "line ends": lambda n: "\n" * n,
    "blank lines": lambda n: " \n" * (n // 2),
    "punctuation": lambda n: "!" * n,
    "digits": lambda n: "7" * n,
    "accents": lambda n: "e" + "\u0301" * n,
    "random characters": mixed,
    "special tokens": lambda n: "<|eot|>" * (n // 7),
    "halves of special tokens": lambda n: "<|eo" * (n // 4),
}


def least_time(work, argument) -> float:
    times = []
    for _ in range(3):
        start = time.process_time()
        work(argument)
        times.append(time.process_time() - start)
    return max(min(times), 1e-4)


def stream(ids: list[int]) -> str:
    pieces = TOKENIZER.stream()
    return "".join([*map(pieces.push, ids), pieces.flush()])


@pytest.mark.parametrize("name", TEXTS)
def test_encoding_and_decoding_grow_with_the_text(name):
    small, large = (TEXTS[name](size) for size in (SIZE, SIZE * GROWTH))
    small_ids, large_ids = TOKENIZER.encode(small), TOKENIZER.encode(large)
    assert TOKENIZER.decode(large_ids, skip_special_tokens=False).endswith(large)
    allowed = GROWTH * SLACK
    assert least_time(TOKENIZER.encode, large) < allowed * least_time(TOKENIZER.encode, small)
    assert least_time(TOKENIZER.decode, large_ids) < allowed * least_time(
        TOKENIZER.decode, small_ids
    )


@pytest.mark.parametrize("run", [[188], [222, 253], [0], [220]], ids=["broken", "halves", "!", " "])
def test_streaming_grows_with_the_ids(run):
    small, large = run * SIZE, run * SIZE * GROWTH
    assert stream(large) == TOKENIZER.decode(large)
    assert least_time(stream, large) < GROWTH * SLACK * least_time(stream, small)
