"""The chat format: what is rendered, what is refused."""

from __future__ import annotations

import json

import pytest
from checkpoint_support import write_random

from mobilemoe.checkpoint import ChatFormat, Tokenizer
from mobilemoe.data import train_tokenizer
from mobilemoe.errors import CheckpointError, MobileMoEError

USER = {"role": "user", "content": "Hi there"}
ASSISTANT = {"role": "assistant", "content": "Hello."}
TEXTS = ["user and assistant say hi there and hello to each other. " * 4]
BOS, START, END, EOT = 0, 2, 3, 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    tokenizer_json = train_tokenizer(TEXTS, 290).to_str()
    path = tmp_path_factory.mktemp("chat") / "model"
    return write_random(path, tokenizer_json=tokenizer_json, chat=True).folder


def with_settings(folder, **settings) -> ChatFormat:
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return ChatFormat.from_folder(folder)


def test_one_turn(folder):
    assert ChatFormat.from_folder(folder).render([USER]) == (
        "<|begin_of_text|><|header_start|>user<|header_end|>\n\nHi there<|eot|>"
        "<|header_start|>assistant<|header_end|>\n\n"
    )


def test_a_whole_conversation_without_another_turn(folder):
    system = {"role": "system", "content": " Be brief. \n"}
    chat = ChatFormat.from_folder(folder)
    assert chat.render([system, USER, ASSISTANT], add_generation_prompt=False) == (
        "<|begin_of_text|>"
        "<|header_start|>system<|header_end|>\n\nBe brief.<|eot|>"
        "<|header_start|>user<|header_end|>\n\nHi there<|eot|>"
        "<|header_start|>assistant<|header_end|>\n\nHello.<|eot|>"
    )


def test_content_is_data_not_template(folder):
    hostile = {"role": "user", "content": "{{ 7 * 7 }} {% raw %} <b> & ''"}
    rendered = ChatFormat.from_folder(folder).render([hostile])
    assert "{{ 7 * 7 }} {% raw %} <b> & ''<|eot|>" in rendered


def test_the_markers_become_single_tokens(folder):
    ids = Tokenizer.from_folder(folder).encode(
        ChatFormat.from_folder(folder).render([USER]), add_bos=False
    )
    assert ids[:2] == [BOS, START]
    assert ids.count(BOS) == ids.count(EOT) == 1
    assert ids.count(START) == ids.count(END) == 2


def test_rendering_leaves_the_messages_alone(folder):
    messages = [dict(USER)]
    ChatFormat.from_folder(folder).render(messages)
    assert messages == [USER]


def test_a_base_model_has_no_chat(tmp_path):
    base = write_random(tmp_path / "base", tokenizer_json="{}").folder
    bare = write_random(tmp_path / "bare").folder
    for folder in (base, bare):
        with pytest.raises(CheckpointError, match="no chat template: it is a Base model") as caught:
            ChatFormat.from_folder(folder)
        assert "mobilemoe generate" in caught.value.hint


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000])
def test_rejects_settings_that_are_no_json(tmp_path, text):
    (tmp_path / "tokenizer_config.json").write_text(text)
    with pytest.raises(CheckpointError, match="cannot read"):
        ChatFormat.from_folder(tmp_path)


def test_rejects_settings_that_are_no_object(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="is not a JSON object"):
        ChatFormat.from_folder(tmp_path)


@pytest.mark.parametrize(
    ("token", "text"), [("<s>", "<s>"), (None, ""), ({"content": "<s>", "lstrip": False}, "<s>")]
)
def test_bos_may_be_text_an_object_or_nothing(tmp_path, token, text):
    chat = with_settings(tmp_path, chat_template="{{ bos_token }}|", bos_token=token)
    assert chat.render([]) == f"{text}|"


@pytest.mark.parametrize("token", [3, ["<s>"], {"content": 3}])
def test_rejects_a_bos_of_another_kind(tmp_path, token):
    with pytest.raises(CheckpointError, match="bos_token is"):
        with_settings(tmp_path, chat_template="x", bos_token=token)


@pytest.mark.parametrize("message", [{}, {"role": "user"}, {"content": "Hi"}])
def test_rejects_a_message_without_role_or_content(folder, message):
    with pytest.raises(MobileMoEError, match="needed: role and content"):
        ChatFormat.from_folder(folder).render([USER, message])


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ ().__class__.__base__.__subclasses__() }}",
        "{{ messages.__class__.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ lipsum.__globals__['os'].popen('id').read() }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({'role': 'system'}) }}",
        "{{ '{0.__class__.__mro__}'.format(1) }}",
    ],
)
def test_a_template_cannot_leave_its_sandbox(template):
    with pytest.raises(MobileMoEError, match="the chat template failed"):
        ChatFormat(template, "").render([USER])


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__ }}",
        "{{ '{0.__class__}'.format(1) }}",
        "{{ messages|attr('__class__')|attr('__subclasses__') }}",
    ],
)
def test_a_hidden_attribute_that_is_only_printed_shows_nothing(template):
    assert ChatFormat(template, "").render([USER]) == ""


@pytest.mark.parametrize(
    "template",
    [
        "{{ x",
        "{% for %}",
        "{{ 1 / 0 }}",
        "{{ 'a' + 1 }}",
        "{{ nothing.at.all }}",
        "{{ range(10 ** 9) | length }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% include 'other' %}",
        "{{ raise_exception('no system turn') }}",
    ],
)
def test_a_template_that_fails_is_one_error(template):
    with pytest.raises(MobileMoEError, match="the chat template failed"):
        ChatFormat(template, "").render([USER])
