r"""The chat format of the release: its template, and the same in Python.

BOS <hs>role<he>\n\n text <eot> ... <hs>assistant<he>\n\n
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "<|header_start|>{{ message['role'] }}<|header_end|>\n\n"
    "{{ message['content'] | trim }}<|eot|>"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|header_start|>assistant<|header_end|>\n\n{% endif %}"
)


def builtin_render(
    messages: Sequence[Mapping[str, str]], bos_token: str, add_generation_prompt: bool = True
) -> str:
    """Return what CHAT_TEMPLATE makes of `messages`, without a template engine."""
    turns = [_header(message["role"]) + message["content"].strip() for message in messages]
    text = bos_token + "".join(f"{turn}<|eot|>" for turn in turns)
    return text + _header("assistant") if add_generation_prompt else text


def _header(role: str) -> str:
    return f"<|header_start|>{role}<|header_end|>\n\n"
