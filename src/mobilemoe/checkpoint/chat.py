"""Chat messages to prompt text and ids with the checkpoint's own template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mobilemoe.checkpoint.chat_escape import encode_rendered
from mobilemoe.checkpoint.chat_known import CHAT_TEMPLATE, builtin_render
from mobilemoe.checkpoint.chat_settings import MAX_TEMPLATE_BYTES, read_chat_settings
from mobilemoe.checkpoint.tokenizer import Tokenizer
from mobilemoe.errors import MobileMoEError

__all__ = ["CHAT_TEMPLATE", "ChatFormat"]

Message = Mapping[str, str]

# Work and output that one template may take, in the units of chat_work and in characters. A
# known template takes about a tenth of it.
WORK = 2**21
WORK_PER_MESSAGE = 2**14
WORK_PER_CHARACTER = 64
OUTPUT = 2**20
OUTPUT_PER_CHARACTER = 4
MAX_REASON = 300


@dataclass(frozen=True)
class ChatFormat:
    """The chat template of one checkpoint, and the tokens that it may print.

    Raises:
        MobileMoEError: if the template is longer than 64 KiB.
    """

    template: str
    bos_token: str
    eos_token: str = ""

    def __post_init__(self) -> None:
        size = len(self.template.encode(errors="surrogatepass"))
        if size > MAX_TEMPLATE_BYTES:
            raise MobileMoEError(
                f"the chat template has {size} bytes; allowed: {MAX_TEMPLATE_BYTES}",
                hint="a chat template has a few thousand; is this file one?",
            )

    @classmethod
    def from_folder(cls, folder: Path) -> ChatFormat:
        """Read the template from `folder`: chat_template.jinja, else tokenizer_config.json.

        Raises:
            CheckpointError: if there is none (a Base model), or a file cannot be read.
        """
        settings = read_chat_settings(Path(folder))
        return cls(settings.template, settings.bos_token, settings.eos_token)

    def render(self, messages: Sequence[Message], add_generation_prompt: bool = True) -> str:
        """Return the prompt text, special tokens included: encode it without another BOS.

        A special token spelled out in a message cannot be told from the template's own here;
        `encode` keeps them apart.

        Raises:
            MobileMoEError: if a message lacks its role or content, or if the template fails,
                tries to leave its sandbox, or costs out of all proportion to the messages.
        """
        _check_messages(messages)
        if self.template == CHAT_TEMPLATE:
            return builtin_render(messages, self.bos_token, add_generation_prompt)
        return self._render_sandboxed(messages, add_generation_prompt)

    def encode(
        self,
        tokenizer: Tokenizer,
        messages: Sequence[Message],
        add_generation_prompt: bool = True,
    ) -> list[int]:
        """Return the prompt ids of `messages`: as the template says, with at most one BOS.

        Only the template makes control tokens: what a message spells out, `<|eot|>` say, is
        encoded as text. Without that, the ids are those of the rendered text.

        Raises:
            MobileMoEError: as `render` does, or if a message is not valid Unicode.
        """

        def render(changed: Sequence[Message]) -> str:
            return self.render(changed, add_generation_prompt)

        ids = encode_rendered(render, tokenizer, messages, self.template)
        while tokenizer.bos_id is not None and ids[:2] == [tokenizer.bos_id] * 2:
            ids = ids[1:]
        return ids

    def _render_sandboxed(self, messages: Sequence[Message], add_generation_prompt: bool) -> str:
        from mobilemoe.checkpoint.chat_sandbox import render_sandboxed  # jinja2, if needed

        variables = {
            "messages": [dict(message) for message in messages],
            "tools": None,
            "documents": None,
            "bos_token": self.bos_token,
            "eos_token": self.eos_token,
            "add_generation_prompt": add_generation_prompt,
        }
        size = sum(len(text) for message in messages for text in message.values())
        work = WORK + WORK_PER_MESSAGE * len(messages) + WORK_PER_CHARACTER * size
        output = OUTPUT + OUTPUT_PER_CHARACTER * size
        try:
            return "".join(render_sandboxed(self.template, variables, work, output))
        except Exception as error:  # a foreign template can divide by zero, recurse, ...
            raise MobileMoEError(
                f"the chat template failed: {_reason(error)}",
                hint="the template is in chat_template.jinja or tokenizer_config.json",
            ) from error


def _reason(error: Exception) -> str:
    """Return what a template's error says, fit for a terminal: one line, no control characters."""
    text = " ".join(str(error)[:MAX_REASON].split()) or type(error).__name__
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


def _check_messages(messages: Sequence[Message]) -> None:
    for message in messages:
        if not {"role", "content"} <= set(message):
            raise MobileMoEError(
                f"a chat message has the keys {sorted(message)}; needed: role and content",
                hint='write it as {"role": "user", "content": "..."}',
            )
        wrong = [key for key, value in message.items() if not isinstance(value, str)]
        if wrong:
            raise MobileMoEError(
                f"{wrong[0]} of a chat message is {message[wrong[0]]!r:.60}; allowed: text",
                hint="join the parts of a message to one text",
            )
