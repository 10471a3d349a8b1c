"""Where the chat template comes from, and which files are refused."""

from __future__ import annotations

import json

import pytest

from mobilemoe.checkpoint import ChatFormat
from mobilemoe.checkpoint.chat_settings import (
    MAX_SETTINGS_BYTES,
    MAX_TEMPLATE_BYTES,
    read_chat_settings,
)
from mobilemoe.errors import CheckpointError, MobileMoEError


def write(folder, template_file=None, **settings):
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    if template_file is not None:
        (folder / "chat_template.jinja").write_bytes(template_file)
    return folder


def test_the_template_file_comes_first(tmp_path):
    write(tmp_path, "file 日本\n".encode(), chat_template="settings")
    assert ChatFormat.from_folder(tmp_path).render([]) == "file 日本"


def test_the_template_file_is_enough(tmp_path):
    (tmp_path / "chat_template.jinja").write_text("[{{ bos_token }}]")
    assert ChatFormat.from_folder(tmp_path).render([]) == "[]"


def test_an_empty_template_is_a_template(tmp_path):
    assert ChatFormat.from_folder(write(tmp_path, b"")).render([]) == ""
    assert ChatFormat.from_folder(write(tmp_path, chat_template="")).render([]) == ""


def test_of_named_templates_the_default_is_taken(tmp_path):
    named = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "plain"}]
    assert read_chat_settings(write(tmp_path, chat_template=named)).template == "plain"


@pytest.mark.parametrize(
    "template",
    [
        3,
        {},
        {"default": "x"},
        [],
        ["x"],
        [3],
        [{"name": "rag", "template": "x"}],
        [{"name": "default"}],
        [{"name": "default", "template": 3}],
        [{"name": ["default"], "template": "x"}],
    ],
)
def test_another_kind_of_template_is_refused(tmp_path, template):
    with pytest.raises(CheckpointError, match=r"chat_template is .*; allowed: text") as caught:
        ChatFormat.from_folder(write(tmp_path, chat_template=template))
    assert "tokenizer_config.json" in caught.value.message
    assert caught.value.hint


def test_null_is_no_template(tmp_path):
    with pytest.raises(CheckpointError, match="Base model"):
        ChatFormat.from_folder(write(tmp_path, chat_template=None))


def test_both_special_tokens_may_be_printed(tmp_path):
    folder = write(
        tmp_path,
        chat_template="{{ bos_token }}|{{ eos_token }}",
        bos_token="<s>",
        eos_token={"content": "</s>"},
    )
    assert ChatFormat.from_folder(folder).render([]) == "<s>|</s>"


def test_rejects_an_eos_of_another_kind(tmp_path):
    with pytest.raises(CheckpointError, match=r"eos_token is \['</s>'\]"):
        ChatFormat.from_folder(write(tmp_path, chat_template="x", eos_token=["</s>"]))


def test_a_template_may_be_as_long_as_allowed_and_no_longer(tmp_path):
    most = "é" * (MAX_TEMPLATE_BYTES // 2)
    assert ChatFormat(most, "").render([]) == most
    with pytest.raises(MobileMoEError, match=f"has {MAX_TEMPLATE_BYTES + 1} bytes; allowed"):
        ChatFormat(most + "x", "")
    with pytest.raises(MobileMoEError, match="bytes; allowed"):
        ChatFormat.from_folder(write(tmp_path, chat_template=most + "x"))
    with pytest.raises(CheckpointError, match=r"chat_template.jinja: it is larger than 65536"):
        ChatFormat.from_folder(write(tmp_path, most.encode() + b"x"))


def test_settings_of_any_size_are_not_read_to_the_end(tmp_path):
    with (tmp_path / "tokenizer_config.json").open("wb") as file:
        file.truncate(1 << 40)  # sparse: it takes no room
    with pytest.raises(CheckpointError, match=f"larger than {MAX_SETTINGS_BYTES} bytes"):
        ChatFormat.from_folder(tmp_path)


def test_rejects_a_template_file_that_is_no_text(tmp_path):
    with pytest.raises(CheckpointError, match=r"cannot read .*chat_template\.jinja"):
        ChatFormat.from_folder(write(tmp_path, b"\xff\xfe"))
    (tmp_path / "chat_template.jinja").unlink()
    (tmp_path / "chat_template.jinja").mkdir()
    with pytest.raises(CheckpointError, match=r"cannot read .*chat_template\.jinja"):
        ChatFormat.from_folder(tmp_path)
