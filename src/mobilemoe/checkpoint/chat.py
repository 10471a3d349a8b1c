"""Chat messages to prompt text with the checkpoint's own template, in a sandbox."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2.sandbox import ImmutableSandboxedEnvironment

from mobilemoe.errors import CheckpointError, MobileMoEError

# BOS <hs>role<he>\n\n text <eot> ... <hs>assistant<he>\n\n
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "<|header_start|>{{ message['role'] }}<|header_end|>\n\n"
    "{{ message['content'] | trim }}<|eot|>"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|header_start|>assistant<|header_end|>\n\n{% endif %}"
)


@dataclass(frozen=True)
class ChatFormat:
    """The chat template of one checkpoint."""

    template: str
    bos_token: str

    @classmethod
    def from_folder(cls, folder: Path) -> ChatFormat:
        """Read the template from `folder`/tokenizer_config.json.

        Raises:
            CheckpointError: if there is none: a Base model.
        """
        path = Path(folder) / "tokenizer_config.json"
        settings = _read_settings(path)
        template = settings.get("chat_template")
        if not isinstance(template, str):
            raise CheckpointError(
                f"{folder} has no chat template: it is a Base model",
                hint="use `mobilemoe generate`, or an SFT or QAT checkpoint",
            )
        return cls(template, _token_text(path, settings.get("bos_token")))

    def render(
        self, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Return the prompt text, special tokens included: encode it without another BOS.

        Raises:
            MobileMoEError: if a message lacks its role or content, or if the template fails or
                tries to leave its sandbox.
        """
        _check_messages(messages)
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        try:
            return environment.from_string(self.template).render(
                messages=list(messages),
                bos_token=self.bos_token,
                add_generation_prompt=add_generation_prompt,
            )
        except Exception as error:  # a foreign template can divide by zero, recurse, ...
            raise MobileMoEError(
                f"the chat template failed: {error}",
                hint="the template is in tokenizer_config.json of the checkpoint",
            ) from error


def _check_messages(messages: Sequence[Mapping[str, str]]) -> None:
    for message in messages:
        if not {"role", "content"} <= set(message):
            raise MobileMoEError(
                f"a chat message has the keys {sorted(message)}; needed: role and content",
                hint='write it as {"role": "user", "content": "..."}',
            )


def _token_text(path: Path, token: Any) -> str:
    """Return a special token's text; tokenizer_config.json may hold null or an object."""
    if isinstance(token, dict):
        token = token.get("content")
    if token is not None and not isinstance(token, str):
        raise CheckpointError(f"{path}: bos_token is {token!r}; allowed: text or null")
    return token or ""


def _read_settings(path: Path) -> Mapping[str, Any]:
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error
    if not isinstance(settings, dict):
        raise CheckpointError(f"{path}: is not a JSON object")
    return settings
