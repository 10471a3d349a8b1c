"""Whether a turn ends: the ids at which generation stops, against all that says how a turn ends."""

from __future__ import annotations

from mobilemoe.checkpoint import ChatFormat, Checkpoint, Tokenizer
from mobilemoe.checkpoint.text_files import read_json_object
from mobilemoe.errors import CheckpointError, MobileMoEError
from mobilemoe.verify.receipt import Check

NAME = "end of turn"
SETTINGS = "generation_config.json"
TURN = (
    {"role": "user", "content": "What is 2 + 2?"},
    {"role": "assistant", "content": "4"},
)


def end_of_turn(checkpoint: Checkpoint, tokenizer: Tokenizer | None) -> Check:
    """Compare `eos_token_id` of config.json, the one that is obeyed, with the other files.

    It must have every id that generation_config.json has, and the last special token that the
    chat template puts after an assistant's turn.
    """
    try:
        other = other_ends(checkpoint)
    except CheckpointError as error:
        return Check(NAME, "fail", error.message, {"hint": error.hint})
    ends = checkpoint.config.eos_token_id
    data: dict[str, object] = {"config": list(ends), "generation_config": list(other)}
    if not set(other) <= set(ends):
        detail = f"{SETTINGS} ends at {list(other)}, config.json only at {list(ends)}"
        hint = {"hint": "put all of them into eos_token_id of config.json"}
        return Check(NAME, "fail", detail, data | hint)
    return _template_check(checkpoint, tokenizer, data)


def other_ends(checkpoint: Checkpoint) -> tuple[int, ...]:
    """Return `eos_token_id` of generation_config.json; nothing if it does not say.

    Raises:
        CheckpointError: if the file cannot be read, or holds anything but ids there.
    """
    path = checkpoint.folder / SETTINGS
    if not path.is_file():
        return ()
    value = read_json_object(path).get("eos_token_id")
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if not all(type(each) is int for each in ids):
        raise CheckpointError(
            f"{path}: eos_token_id is {value!r:.80}; allowed: an id or a list of ids",
            hint="take it from the release again",
        )
    return tuple(ids)


def _template_check(
    checkpoint: Checkpoint, tokenizer: Tokenizer | None, data: dict[str, object]
) -> Check:
    if tokenizer is None:
        return Check(NAME, "skip", "there is no tokenizer to encode a turn with", data)
    try:
        chat = ChatFormat.from_folder(checkpoint.folder)
        ids = chat.encode(tokenizer, TURN, add_generation_prompt=False)
    except MobileMoEError:  # a check of its own says so
        return Check(NAME, "skip", "there is no chat template that renders a turn", data)
    names = {number: token for token, number in tokenizer.special_tokens.items()}
    last = next((number for number in reversed(ids) if number in names), None)
    if last is None:
        return Check(NAME, "fail", "the template ends a turn with no special token", data)
    data |= {"template": last}
    detail = f"the template ends a turn with {names[last]} {last}"
    ends = list(checkpoint.config.eos_token_id)
    if last not in ends:
        hint = {"hint": f"put {last} into eos_token_id of config.json"}
        return Check(NAME, "fail", f"{detail}; config.json ends only at {ends}", data | hint)
    return Check(NAME, "pass", f"{detail}, one of eos_token_id {ends}", data)
