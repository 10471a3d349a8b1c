"""The known chat format in Python: equal to its template, and used in its place."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mobilemoe.checkpoint import ChatFormat, builtin_render
from mobilemoe.checkpoint.chat_known import CHAT_TEMPLATE
from mobilemoe.errors import MobileMoEError

BOS = "<|begin_of_text|>"
# Another template of the same meaning: this one goes through Jinja.
THROUGH_JINJA = ChatFormat(CHAT_TEMPLATE + "{# #}", BOS)
CHARACTERS = st.characters(exclude_categories=["Cs"])
WORDS = st.one_of(
    st.text(CHARACTERS, max_size=20),
    st.sampled_from(
        ["", " \t\n", "\x1c\x85\u2028 x \u3000", "{{ 7 * 7 }}", "{% raw %}", "<b>&'\""]
    ),
)
CONVERSATIONS = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.one_of(st.sampled_from(["system", "user", "assistant"]), WORDS),
            "content": WORDS,
        }
    ),
    max_size=5,
)


@settings(max_examples=200, deadline=None)
@given(CONVERSATIONS, st.booleans(), st.sampled_from([BOS, "", "<s>"]))
@example([], True, BOS)
@example([{"role": "user", "content": "x", "name": "extra keys are not printed"}], True, BOS)
def test_the_builtin_equals_the_template(messages, add_generation_prompt, bos):
    text = builtin_render(messages, bos, add_generation_prompt)
    through_jinja = ChatFormat(THROUGH_JINJA.template, bos)
    assert through_jinja.render(messages, add_generation_prompt) == text
    assert ChatFormat(CHAT_TEMPLATE, bos).render(messages, add_generation_prompt) == text


@pytest.mark.parametrize(("suffix", "loaded"), [("", "False"), ("{# #}", "True")])
def test_the_known_template_needs_no_template_engine(suffix, loaded):
    code = (
        "import sys; from mobilemoe.checkpoint.chat import CHAT_TEMPLATE, ChatFormat\n"
        f"ChatFormat(CHAT_TEMPLATE + {suffix!r}, '').render([{{'role': 'user', 'content': 'x'}}])\n"
        "print('jinja2' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{loaded}\n"


@pytest.mark.parametrize("value", [None, 3, ["text"], {"type": "text"}, b"text"])
@pytest.mark.parametrize("key", ["content", "role", "name"])
def test_a_message_of_anything_but_text_is_refused(key, value):
    message = {"role": "user", "content": "x"} | {key: value}
    for chat in (ChatFormat(CHAT_TEMPLATE, BOS), THROUGH_JINJA):
        with pytest.raises(MobileMoEError, match=f"{key} of a chat message is .*; allowed: text"):
            chat.render([message])
