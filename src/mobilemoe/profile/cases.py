"""What a benchmark measures: prompts and generated tokens, at depths, on threads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mobilemoe.errors import MobileMoEError

Kind = Literal["prefill", "decode"]


@dataclass(frozen=True)
class Case:
    """One row: `tokens` appended at once (prefill) or one by one (decode) after `depth` others."""

    kind: Kind
    tokens: int
    depth: int
    threads: int

    @property
    def context(self) -> int:
        """Tokens that the context must hold."""
        return self.depth + self.tokens

    @property
    def label(self) -> str:
        """The name that llama-bench gives it: pp512 @ d4096, tg128."""
        name = f"{'pp' if self.kind == 'prefill' else 'tg'}{self.tokens}"
        return f"{name} @ d{self.depth}" if self.depth else name


def cases(
    prompts: Sequence[int], generated: Sequence[int], depths: Sequence[int], threads: Sequence[int]
) -> tuple[Case, ...]:
    """Return every combination, threads outside, then depth; a length of 0 leaves a kind out.

    Raises:
        MobileMoEError: if nothing is left to measure.
    """
    kinds: tuple[tuple[Kind, Sequence[int]], ...] = (("prefill", prompts), ("decode", generated))
    found = tuple(
        Case(kind, tokens, depth, count)
        for count in dict.fromkeys(threads)
        for depth in dict.fromkeys(depths)
        for kind, lengths in kinds
        for tokens in dict.fromkeys(lengths)
        if tokens > 0
    )
    if not found:
        raise MobileMoEError(
            "nothing to measure: every prompt length and every generated length is 0",
            hint="give -p or -n a length, for example -p 512 -n 128",
        )
    return found


def needed_context(wanted: Sequence[Case], longest: int, name: str) -> int:
    """Return the context in which all cases fit.

    Raises:
        MobileMoEError: if a case does not fit `longest`, the context of the model `name`.
    """
    case = max(wanted, key=lambda case: case.context)
    if case.context > longest:
        option = "-p" if case.kind == "prefill" else "-n"
        raise MobileMoEError(
            f"{option} {case.tokens} at -d {case.depth} needs a context of {case.context} tokens; "
            f"allowed: at most {longest}, the max_position_embeddings of {name}",
            hint=f"{option} and -d together must not exceed {longest}",
        )
    return case.context
