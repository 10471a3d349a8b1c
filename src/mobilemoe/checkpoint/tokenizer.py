"""Text to ids and back with the checkpoint's own tokenizer.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tokenizers import Tokenizer as Backend
from tokenizers.decoders import DecodeStream

from mobilemoe.errors import CheckpointError, MobileMoEError

BOS = "<|begin_of_text|>"


class Tokenizer:
    """The tokenizer of one checkpoint. Spaces are never cleaned up: that damages code."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._bos: int | None = backend.token_to_id(BOS)

    @classmethod
    def from_folder(cls, folder: Path) -> Tokenizer:
        """Read `folder`/tokenizer.json.

        Raises:
            CheckpointError: if it is missing or not a tokenizer.
        """
        path = Path(folder) / "tokenizer.json"
        if not path.is_file():
            raise CheckpointError(
                f"{folder} has no tokenizer.json", hint="give token ids instead of text"
            )
        try:
            backend = Backend.from_file(str(path))
        except Exception as error:  # the library raises bare Exception for a bad file
            raise CheckpointError(f"{path}: is not a tokenizer: {error}") from error
        return cls(backend)

    def encode(self, text: str, add_bos: bool = True) -> list[int]:
        """Return the ids of `text`, special tokens in it included; BOS first if `add_bos`.

        Raises:
            MobileMoEError: if `text` is not valid Unicode.
        """
        try:
            ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        except TypeError as error:  # what the library makes of half a surrogate pair
            raise MobileMoEError(
                "the text cannot be written as UTF-8", hint="was it read with the right encoding?"
            ) from error
        return [self._bos, *ids] if add_bos and self._bos is not None else ids

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Return the text of `ids`."""
        text: str = self._backend.decode(list(ids), skip_special_tokens=skip_special_tokens)
        return text

    def stream(self) -> TextStream:
        """Return a decoder that takes one id at a time."""
        return TextStream(self._backend)


@dataclass
class TextStream:
    """Incremental decoding: never half a character."""

    backend: Backend
    _decoder: DecodeStream = field(init=False)
    _pending: list[int] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self._decoder = DecodeStream(skip_special_tokens=True)

    def push(self, token_id: int) -> str:
        """Return the text that `token_id` completes, possibly empty."""
        self._pending.append(token_id)
        text: str | None = self._decoder.step(self.backend, token_id)
        if text is None:
            return ""
        self._pending.clear()
        return text

    def flush(self) -> str:
        """Return what is left at the end; bytes that form no character become U+FFFD."""
        text: str = self.backend.decode(self._pending, skip_special_tokens=True)
        self._pending.clear()
        return text
