"""A small tokenizer in the style of the released one, for models of random weights.

Byte-level BPE with the released kind of pre-tokenizer, the 256 bytes and a few hundred merges of
common words. In a vocabulary of the released size the special tokens have the released ids;
most other ids have no token and decode to nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any

from mobilemoe.checkpoint.byte_level import BYTE_ORDER, LETTER_OF_BYTE, spell
from mobilemoe.config import ModelConfig
from mobilemoe.errors import MobileMoEError

BEGIN_OF_TEXT, END_OF_TEXT = "<|begin_of_text|>", "<|end_of_text|>"
HEADER_START, HEADER_END, EOT = "<|header_start|>", "<|header_end|>", "<|eot|>"

# Distance from BOS. The released layout keeps a block of 256 ids for special tokens; a small
# vocabulary has just the five that a chat needs, side by side.
RELEASED_LAYOUT = {BEGIN_OF_TEXT: 0, END_OF_TEXT: 1, HEADER_START: 5, HEADER_END: 6, EOT: 8}
COMPACT_LAYOUT = {name: place for place, name in enumerate(RELEASED_LAYOUT)}
SPECIAL_BLOCK = 256

# Text is cut into pieces by the first rule that fits, in this order; no merge crosses a cut.
PIECES = (
    r"(?i:'(?:s|t|re|ve|m|ll|d))",  # the ends of English contractions
    r"[^\r\n\p{L}\p{N}]?\p{L}+",  # letters, with one character such as a space in front
    r"\p{N}{1,3}",  # digits, up to three at a time
    r" ?[^\s\p{L}\p{N}]+[\r\n]*",  # punctuation, with a space in front and its line ends
    r"\s*[\r\n]+",  # line ends, with the blanks before them
    r"\s+(?!\S)",  # blanks, but for the last one before a word
    r"\s+",
)
# Each word alone and after a space. Words of one stem stay together: they share merges.
WORDS = (
    "the that this then there these they them their other another and any an as at are all also "
    "of on one only or out over our off in into is it its if to too two time take for from first "
    "find file false true try be been before because but by best back with which while when where "
    "what who why will would word world work was were we well have has had he her his him here "
    "how hello not no now new number name none more most many make made model mobile me my must "
    "can could come code class case call common do does done did day def data dict so some such "
    "same see say said self set string str up under use used user about after again answer ask "
    "assistant system you your year yes people part place print please put than their think thing "
    "through give get go good great know just like line list long look last let little life very "
    "value return import int else every even each expert token text test memory mixture device "
    "small large language learn question write read run right phone fast"
)
RUNS = tuple(2**power for power in range(1, 6))  # of blanks and line ends


def synthetic_tokenizer_json(config: ModelConfig) -> str:
    """Return the text of a `tokenizer.json` whose ids lie inside `config`'s vocabulary.

    `<|begin_of_text|>` has the id `bos_token_id`; `<|end_of_text|>` is the first and `<|eot|>`
    the last of several `eos_token_id`, as far as these are not BOS themselves. With 256 ids from
    BOS on, the other special tokens lie where the release has them; else next to BOS.

    Raises:
        MobileMoEError: if the vocabulary has no room for 256 bytes and 5 special tokens.
    """
    smallest = SPECIAL_BLOCK + len(COMPACT_LAYOUT)
    if config.vocab_size < smallest:
        raise MobileMoEError(
            f"vocab_size is {config.vocab_size}; a tokenizer needs at least {smallest}",
            hint="use a larger vocabulary, or do without a tokenizer",
        )
    special = special_ids(config)
    taken = set(special.values())
    free = (token_id for token_id in range(config.vocab_size) if token_id not in taken)
    vocabulary = {LETTER_OF_BYTE[byte]: next(free) for byte in BYTE_ORDER}
    merges = []
    for (left, right), token_id in zip(_merges(), free, strict=False):
        merges.append([left, right])
        vocabulary[left + right] = token_id
    return json.dumps(_document(special, vocabulary, merges), ensure_ascii=False) + "\n"


def special_ids(config: ModelConfig) -> dict[str, int]:
    """Return the ids of the special tokens in a synthetic vocabulary, in the order of ids."""
    bos, size = config.bos_token_id, config.vocab_size
    has_block = SPECIAL_BLOCK <= bos <= size - SPECIAL_BLOCK
    ids = {BEGIN_OF_TEXT: bos} | _ends(config)
    reserved = {bos, *config.eos_token_id}
    for name, place in (RELEASED_LAYOUT if has_block else COMPACT_LAYOUT).items():
        if name not in ids:
            ids[name] = _first_free(bos + place, size, reserved)
            reserved.add(ids[name])
    if has_block:
        reserved |= set(range(bos, bos + SPECIAL_BLOCK))
    for number, token_id in enumerate(sorted(reserved - set(ids.values()))):
        ids[f"<|reserved_special_token_{number}|>"] = token_id
    return dict(sorted(ids.items(), key=lambda item: item[1]))


def ends_turns(config: ModelConfig) -> bool:
    """Whether `<|eot|>` of a synthetic vocabulary is an `eos_token_id`: else a chat runs on."""
    return special_ids(config)[EOT] in config.eos_token_id


def _ends(config: ModelConfig) -> dict[str, int]:
    ends = [i for i in dict.fromkeys(config.eos_token_id) if i != config.bos_token_id]
    if len(ends) < 2:
        return {END_OF_TEXT: ends[0]} if ends else {}
    return {END_OF_TEXT: ends[0], EOT: ends[-1]}


def _first_free(wanted: int, size: int, taken: set[int]) -> int:
    return next(i % size for i in count(wanted) if i % size not in taken)


def _merges() -> Iterator[tuple[str, str]]:
    """Yield pairs that spell the words from left to right, each new token once."""
    made: set[str] = set()
    words = [text for word in WORDS.split() for text in (f" {word}", word)]
    runs = [letter * length for letter in " \n" for length in RUNS]
    for text in (*runs, *words):
        letters = spell(text.encode())
        half = len(letters) // 2
        steps = [(letters[:half],) * 2] if text in runs else _prefixes(letters)
        for left, right in steps:
            if left + right not in made:
                made.add(left + right)
                yield left, right


def _prefixes(letters: str) -> list[tuple[str, str]]:
    return [(letters[:end], letters[end]) for end in range(1, len(letters))]


def _document(
    special: Mapping[str, int], vocabulary: Mapping[str, int], merges: Sequence[list[str]]
) -> dict[str, Any]:
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    byte_level["use_regex"] = False  # the pieces are cut already
    cut = {"type": "Split", "pattern": {"Regex": "|".join(PIECES)}, "behavior": "Isolated"}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added_token(name, token_id) for name, token_id in special.items()],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [cut | {"invert": False}, byte_level],
        },
        "post_processor": _bos_in_front(special[BEGIN_OF_TEXT]),
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": True,  # a piece that is a token is that token
            # Special tokens too: the library honours ids with holes only from here.
            "vocab": {**vocabulary, **special},
            "merges": merges,
        },
    }


def _added_token(content: str, token_id: int) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": token_id, "content": content, **flags, "special": True}


def _bos_in_front(token_id: int) -> dict[str, Any]:
    """Return the rule by which other programs add BOS; ours does not read it."""
    bos = {"SpecialToken": {"id": BEGIN_OF_TEXT, "type_id": 0}}
    first, second = ({"Sequence": {"id": name, "type_id": i}} for i, name in enumerate("AB"))
    return {
        "type": "TemplateProcessing",
        "single": [bos, first],
        "pair": [bos, first, bos, second],
        "special_tokens": {
            BEGIN_OF_TEXT: {"id": BEGIN_OF_TEXT, "ids": [token_id], "tokens": [BEGIN_OF_TEXT]}
        },
    }
