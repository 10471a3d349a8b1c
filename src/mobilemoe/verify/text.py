"""Section 3: text to ids and back, and the chat template."""

from __future__ import annotations

from functools import partial

from mobilemoe.checkpoint import ChatFormat, Checkpoint, Tokenizer, golden_check
from mobilemoe.errors import MobileMoEError
from mobilemoe.verify.ending import end_of_turn
from mobilemoe.verify.receipt import Check

CONVERSATION = (
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is 2 + 2?"},
    {"role": "assistant", "content": "4"},
    {"role": "user", "content": "And 3 + 3?"},
)
MARKERS = ("<|header_start|>", "<|header_end|>", "<|eot|>")


def text_checks(checkpoint: Checkpoint) -> list[Check]:
    """Check tokenizer.json, the chat template and the ends of a turn; reads no weights."""
    ending = partial(end_of_turn, checkpoint)
    if not (checkpoint.folder / "tokenizer.json").is_file():
        reason = "the folder has no tokenizer.json"
        skipped = [Check("tokenizer", "skip", reason), Check("chat", "skip", reason)]
        return [*skipped, ending(None)]
    try:
        tokenizer = Tokenizer.from_folder(checkpoint.folder)
    except MobileMoEError as error:
        reason = "there is no tokenizer to encode with"
        return [_failed("tokenizer", error), Check("chat", "skip", reason), ending(None)]
    ids = _id_check(tokenizer, checkpoint.config.vocab_size)
    chat = _chat_checks(checkpoint, tokenizer)
    return [ids, *golden_checks(tokenizer), *chat, ending(tokenizer)]


def _failed(name: str, error: MobileMoEError) -> Check:
    return Check(name, "fail", error.message, {"hint": error.hint})


def _id_check(tokenizer: Tokenizer, vocab_size: int) -> Check:
    """No id of the vocabulary may lie outside the embedding, whether a text needs it or not."""
    largest = tokenizer.largest_id
    detail = f"largest id {largest:,} of a vocabulary of {vocab_size:,}"
    if largest >= vocab_size:
        return Check("ids", "fail", f"{detail}: the tokenizer has more", {"largest": largest})
    return Check("ids", "pass", detail, {"largest": largest})


def golden_checks(tokenizer: Tokenizer) -> list[Check]:
    """Return the known answers of the release, and what must hold for any tokenizer."""
    return [Check(golden.name, golden.status, golden.detail) for golden in golden_check(tokenizer)]


def _chat_checks(checkpoint: Checkpoint, tokenizer: Tokenizer) -> list[Check]:
    try:
        chat = ChatFormat.from_folder(checkpoint.folder)
    except MobileMoEError as error:
        if "Base model" in error.message:
            return [Check("chat", "skip", "no template: a Base model")]
        return [_failed("chat", error)]
    try:
        text = chat.render(CONVERSATION)
    except MobileMoEError as error:
        return [_failed("chat", error)]
    missing = [turn["content"] for turn in CONVERSATION if turn["content"] not in text]
    if missing:
        return [Check("chat", "fail", f"the template leaves {missing[0]!r} out")]
    rendered = Check("chat", "pass", f"renders {len(CONVERSATION)} turns", {"text": text})
    return [rendered, _marker_check(tokenizer, text)]


def _marker_check(tokenizer: Tokenizer, text: str) -> Check:
    """Each marker of the template must be one control id, not a spelling of it."""
    used = [marker for marker in MARKERS if marker in text]
    spelled = [m for m in used if len(tokenizer.encode(m, add_bos=False)) != 1]
    if spelled:
        return Check("chat markers", "fail", f"{spelled[0]} is not one id of the tokenizer")
    if not used:
        return Check("chat markers", "info", "the template uses none of the known markers")
    ids = {marker: tokenizer.encode(marker, add_bos=False)[0] for marker in used}
    detail = ", ".join(f"{marker} {number}" for marker, number in ids.items())
    return Check("chat markers", "pass", detail, ids)
