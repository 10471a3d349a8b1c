"""What somebody meant who gave a place where no checkpoint folder is."""

from __future__ import annotations

import re
from pathlib import Path

from mobilemoe.checkpoint.hub import is_hub_id

FOLDER_HINT = (
    "give a folder with config.json and model.safetensors, or a hub id such as "
    "facebook/MobileMoE-S-QAT; `make demo` makes a folder"
)
# One slash of two is left of an address that became a Path.
_ADDRESS = re.compile(
    r"(?:https?:/{1,2}(?:www\.)?(?:huggingface\.co|hf\.co)|hf:/?)/(?P<id>[^/?#]+/[^/?#]+)"
    r"(?:/(?:tree|blob|resolve)/(?P<revision>[^/?#]+))?",
    re.ASCII,
)


def hint_for(place: str | Path, otherwise: str = FOLDER_HINT) -> str:
    """Return what to give in place of `place`, where there is no folder.

    `otherwise` is the hint where nothing better can be guessed.
    """
    text = str(place)
    if (address := _ADDRESS.match(text)) is not None and _is_repo(address["id"]):
        revision = address["revision"]
        return f"write {address['id']}{f'@{revision}' if revision else ''}"
    if Path(text).is_file():
        return f"it is a file; give its folder {Path(text).parent}"
    if isinstance(place, Path) and is_hub_id(text):
        return "give a hub id as text, not as a Path"
    if text.endswith("/") and is_hub_id(text.rstrip("/")):
        return f"write {text.rstrip('/')} for the model of the hub, without a slash at the end"
    if _is_repo(text):
        owner = text.partition("/")[0]
        return f"{owner}/ is a folder here, so this is a path; {text}@main asks the hub"
    return otherwise


def _is_repo(text: str) -> bool:
    """Whether `text` names a repository, whatever is in this folder."""
    return "@" not in text and is_hub_id(text, "main")
