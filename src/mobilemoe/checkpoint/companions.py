"""The files of a checkpoint folder beside its weights and config."""

from __future__ import annotations

import re
from pathlib import Path

from mobilemoe.atomic import is_leftover
from mobilemoe.checkpoint.config_file import CONFIG_FILE
from mobilemoe.checkpoint.shards import INDEX_FILE, SINGLE_FILE
from mobilemoe.checkpoint.text_files import read_json_object, read_text
from mobilemoe.config import MODEL_TYPE
from mobilemoe.errors import CheckpointError

TEXT_LIMIT = 100_000_000  # bytes; a Llama-3 tokenizer.json has 17 MB
# What the tokenizer, the chat format and a licence need: goes along unchanged.
COMPANIONS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "generation_config.json",
    "LICENSE",
    "LICENSE.txt",
    "LICENSE.md",
    "USE_POLICY.md",
)
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors", re.ASCII)


def read_companions(folder: Path) -> dict[str, bytes]:
    """Return the content of the companions that are there, by name."""
    return {
        name: read_text(folder / name, TEXT_LIMIT)
        for name in COMPANIONS
        if (folder / name).is_file()
    }


def check_replaceable(folder: Path) -> None:
    """Refuse to replace a folder that holds anything but one checkpoint of this family.

    Raises:
        CheckpointError: naming the first thing that would be lost.
    """
    if not folder.is_dir():
        return
    entries = [path for path in folder.iterdir() if not is_leftover(path, folder.resolve())]
    if not entries:
        return
    foreign = sorted(path.name for path in entries if not _is_ours(path))
    if foreign or not _is_checkpoint(folder):
        what = foreign[0] if foreign else f"a {CONFIG_FILE} of something else, or none"
        raise CheckpointError(
            f"{folder} would be replaced as a whole, and it holds {what}",
            hint="give a new folder, or one that holds nothing but a MobileMoE checkpoint",
        )


def _is_ours(path: Path) -> bool:
    known = (CONFIG_FILE, SINGLE_FILE, INDEX_FILE, *COMPANIONS)
    return not path.is_dir() and (path.name in known or _SHARD.fullmatch(path.name) is not None)


def _is_checkpoint(folder: Path) -> bool:
    try:
        return read_json_object(folder / CONFIG_FILE).get("model_type") == MODEL_TYPE
    except CheckpointError:
        return False
