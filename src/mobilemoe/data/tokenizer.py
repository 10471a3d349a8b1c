"""The corpus's own tokenizer: byte-level BPE with five special tokens at fixed ids.

Text is cut before merging, in this order:
- letters, with one leading character such as a space, a dot or an underscore;
- single digits: in a vocabulary of a few thousand entries, number tokens of two or three
  digits would be rare and badly trained, and a carry would not be a step the model can see;
- punctuation, with one leading space;
- newlines with all but the last space of the indentation that follows: one token moves to
  the next line of a block and the word there is the same token as inside a line;
- newlines alone, whatever follows, so that the header of a chat turn is cut the same way
  with and without the text after it; then other spaces.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from mobilemoe.errors import MobileMoEError

SPECIAL_TOKENS = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|header_start|>",
    "<|header_end|>",
    "<|eot|>",
)
BEGIN_OF_TEXT, END_OF_TEXT, HEADER_START, HEADER_END, EOT = range(5)

_BYTES = 256
_PIECES = "|".join(
    (
        r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+",
        r"\p{N}",
        r" ?[^\s\p{L}\p{N}]+",
        r"[\r\n]+ +(?= \S)",
        r"[\r\n]+",
        r"[^\S\r\n]+(?!\S)",
        r"\s",
    )
)


def train_tokenizer(texts: Iterable[str], vocab_size: int = 4096) -> Tokenizer:
    """Return a tokenizer of exactly `vocab_size` entries; same texts, same bytes.

    Raises:
        MobileMoEError: if `vocab_size` has no room for merges, or the texts hold too few
            repeated pieces to fill it.
    """
    smallest = len(SPECIAL_TOKENS) + _BYTES + 1
    if vocab_size < smallest:
        raise MobileMoEError(f"vocab_size is {vocab_size}; allowed: {smallest} and more")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() != vocab_size:
        raise MobileMoEError(
            f"the texts fill {tokenizer.get_vocab_size()} of {vocab_size} vocabulary entries",
            hint="train on more text or lower vocab_size",
        )
    return tokenizer


def sample_texts(texts: list[str], characters: int) -> list[str]:
    """Return evenly spaced texts of about `characters` in all; all of them if they fit."""
    total = sum(map(len, texts))
    if total <= characters:
        return texts
    wanted = max(1, len(texts) * characters // total)
    return [texts[i * len(texts) // wanted] for i in range(wanted)]
