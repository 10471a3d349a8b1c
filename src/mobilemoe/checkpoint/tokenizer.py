"""Text to ids and back with the checkpoint's own tokenizer.json."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from tokenizers import AddedToken, decoders
from tokenizers import Tokenizer as Backend

from mobilemoe.checkpoint.byte_level import TextStream, bytes_of
from mobilemoe.errors import CheckpointError, MobileMoEError

BOS = "<|begin_of_text|>"
MAX_TOKENIZER_BYTES = 256 * 2**20  # the released file has 17 MB


class Tokenizer:
    """The tokenizer of one checkpoint. Spaces are never cleaned up: that damages code.

    It takes `backend` over: truncation and padding are switched off, and special tokens are
    found here rather than there, so that one tokenizer reads a text with and without them.

    Raises:
        CheckpointError: if `backend` is not byte-level, or has special tokens that swallow
            spaces or match whole words only.
    """

    def __init__(self, backend: Backend) -> None:
        added: Mapping[int, AddedToken] = backend.get_added_tokens_decoder()
        special = {token_id: token for token_id, token in added.items() if token.special}
        _check_backend(backend, special)
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True
        self._backend = backend
        self._special: dict[str, int] = {token.content: i for i, token in special.items()}
        longest_first = sorted(self._special, key=len, reverse=True)
        # Capturing: split() then gives text, token, text, token, ..., text.
        self._markers = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")

    @classmethod
    def from_folder(cls, folder: Path) -> Tokenizer:
        """Read `folder`/tokenizer.json.

        Raises:
            CheckpointError: if it is missing, not a tokenizer, or not byte-level.
        """
        path = Path(folder) / "tokenizer.json"
        if not path.is_file():
            raise CheckpointError(
                f"{folder} has no tokenizer.json", hint="give token ids instead of text"
            )
        return cls.from_file(path)

    @classmethod
    def from_file(cls, path: Path) -> Tokenizer:
        """Read the tokenizer.json at `path`.

        Raises:
            CheckpointError: if it cannot be read, is not a tokenizer, or is not byte-level.
        """
        try:
            if Path(path).stat().st_size > MAX_TOKENIZER_BYTES:
                raise ValueError(f"it is larger than {MAX_TOKENIZER_BYTES} bytes")
            backend = Backend.from_file(str(path))
        except Exception as error:  # the library raises bare Exception for a bad file
            raise CheckpointError(
                f"{path}: is not a tokenizer: {error}", hint="is the download complete?"
            ) from error
        try:
            return cls(backend)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error.message}", hint=error.hint) from error

    @property
    def bos_id(self) -> int | None:
        """Id of `<|begin_of_text|>`, if the vocabulary has it."""
        bos: int | None = self._backend.token_to_id(BOS)
        return bos

    @property
    def special_tokens(self) -> Mapping[str, int]:
        """Text and id of every special (control) token."""
        return MappingProxyType(self._special)

    @property
    def token_count(self) -> int:
        """How many ids have a token: fewer than the model's vocabulary if that has holes."""
        count: int = self._backend.get_vocab_size()
        return count

    @property
    def largest_id(self) -> int:
        """The largest id that has a token, added tokens included; -1 without any token."""
        return max(self._backend.get_vocab(with_added_tokens=True).values(), default=-1)

    def encode(
        self, text: str, add_bos: bool = True, special_tokens_in_text: bool = True
    ) -> list[int]:
        """Return the ids of `text`, with BOS in front if `add_bos`, never twice.

        A special token spelled out in `text` becomes its id; with `special_tokens_in_text`
        False it is text like any other.

        Raises:
            MobileMoEError: if `text` is not valid Unicode.
        """
        ids: list[int] = []
        for index, part in enumerate(self.split(text) if special_tokens_in_text else [text]):
            ids += [self._special[part]] if index % 2 else self._encode_plain(part)
        bos = self.bos_id
        return [bos, *ids] if add_bos and bos is not None and ids[:1] != [bos] else ids

    def split(self, text: str) -> list[str]:
        """Return `text` cut at its special tokens: text, token, text, ..., token, text."""
        return self._markers.split(text) if self._special else [text]

    def _encode_plain(self, text: str) -> list[int]:
        try:
            ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        except TypeError as error:  # what the library makes of half a surrogate pair
            raise MobileMoEError(
                "the text cannot be written as UTF-8", hint="was it read with the right encoding?"
            ) from error
        return ids

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Return the text of `ids`; an id without a token contributes nothing.

        Raises:
            MobileMoEError: if an id is no integer from 0 to 4294967295.
        """
        try:
            text: str = self._backend.decode(list(ids), skip_special_tokens=skip_special_tokens)
        except (OverflowError, TypeError) as error:
            raise _bad_id("one of the token ids", error) from error
        return text

    def token_bytes(self, token_id: int, skip_special_tokens: bool = True) -> bytes:
        """Return the bytes of one token; none for a skipped token or an id without a token.

        Raises:
            MobileMoEError: if the id is no integer from 0 to 4294967295.
        """
        try:
            token: str | None = self._backend.id_to_token(token_id)
        except (OverflowError, TypeError) as error:
            raise _bad_id(f"token id {token_id!r}", error) from error
        if token is None or (skip_special_tokens and token in self._special):
            return b""
        return bytes_of(token)

    def has_token(self, token_id: int) -> bool:
        """Whether `token_id` has a token."""
        return self._backend.id_to_token(token_id) is not None

    def stream(self) -> TextStream:
        """Return a decoder that takes one id at a time; its pieces join to `decode`."""
        return TextStream(self.token_bytes)


def _bad_id(what: str, error: Exception) -> MobileMoEError:
    return MobileMoEError(f"{what} cannot be decoded: {error}; allowed: integers, 0 or more")


def _check_backend(backend: Backend, special: Mapping[int, AddedToken]) -> None:
    if not isinstance(backend.decoder, decoders.ByteLevel):
        kind = type(backend.decoder).__name__ if backend.decoder is not None else "none"
        raise CheckpointError(
            f"the tokenizer's decoder is {kind}; allowed: ByteLevel",
            hint="MobileMoE uses the Llama-3 tokenizer, which is byte-level",
        )
    for token in special.values():
        if token.lstrip or token.rstrip or token.single_word:
            raise CheckpointError(
                f"special token {token.content!r} has lstrip, rstrip or single_word; "
                "allowed: none of them",
                hint="no tokenizer of this family needs them",
            )
