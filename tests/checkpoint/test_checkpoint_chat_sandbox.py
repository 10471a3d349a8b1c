"""Foreign chat templates: those in use render as everywhere else, and none costs much."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
from chat_attacks import ATTACKS, MESSAGES
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from mobilemoe.checkpoint import ChatFormat
from mobilemoe.checkpoint.chat_work import Work, WorkLimitError
from mobilemoe.errors import MobileMoEError

BOS, EOS = "<s>", "</s>"
CONVERSATION = [
    {"role": "system", "content": " Be brief. \n"},
    {"role": "user", "content": "What is <b>2 & 3</b>? 'quotes' \"too\" 日本\n- a\n- b"},
    {"role": "assistant", "content": "<think>hm</think>\n\nFive."},
    {"role": "user", "content": "Why?", "name": "Ann"},
]
# Constructs of released templates: Llama, Qwen, Mistral, Gemma, DeepSeek, Phi and their like.
CONSTRUCTS = {
    "system first": (
        "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] | trim %}"
        "{% set rest = messages[1:] %}{% else %}{% set system = '' %}{% set rest = messages %}"
        "{% endif %}{{ bos_token }}{{ system }}{% for m in rest %}{{ '[' + m.role + ']' }}"
        "{{ m.content.strip() }}{% if not loop.last %}, {% endif %}{% endfor %}{{ eos_token }}"
    ),
    "turns must alternate": (
        "{% for m in messages[1:] %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('turns must alternate') }}{% endif %}{{ m.role }}{% endfor %}"
    ),
    "last query": (
        "{% set ns = namespace(tool=true, last=messages | length - 1) %}"
        "{% for m in messages[::-1] %}{% set index = (messages | length - 1) - loop.index0 %}"
        "{% if ns.tool and m.role == 'user' and not (m.content.startswith('<t>') and "
        "m.content.endswith('</t>')) %}{% set ns.tool = false %}{% set ns.last = index %}"
        "{% endif %}{% endfor %}{{ ns.last }} {{ ns.tool }}"
    ),
    "thinking": (
        "{% for m in messages %}{% if '</think>' in m.content %}"
        "{{ m.content.split('</think>')[-1].lstrip('\\n') }}|"
        "{{ m.content.split('</think>')[0].rstrip('\\n').split('<think>')[-1] }}"
        "{% else %}{{ m.content }}{% endif %}{% endfor %}"
    ),
    "JSON": (
        "{{ messages | tojson }}{{ messages[1] | tojson(indent=4) }}"
        "{{ {'b': [1, 2.5, none, true], 'a': {}} | tojson(sort_keys=true, separators=(',', ':')) }}"
        "{{ '日' | tojson(ensure_ascii=true) }}{{ 'x' | tojson | safe }}"
    ),
    "selections": (
        "{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content')"
        " | join(' / ') }}"
        "{{ messages | rejectattr('name', 'defined') | list | length }}"
        "{{ (messages | map(attribute='role') | unique | list) }}"
        "{{ messages | first | items | list }}"
        "{{ (messages | last)['name'] | default('nobody') | upper }}{{ messages | count }}"
        "{{ ['b', 'a'] | sort | join }}{{ messages[3] | dictsort }}{{ [3, 1] | min }}"
        "{{ 'ab' | reverse }}"
    ),
    "a macro": (
        "{% macro turn(role, text, close=true) %}<|{{ role }}|>{{ text | trim }}"
        "{% if close %}<|end|>{% endif %}{{ caller() if caller }}{% endmacro %}"
        "{% for m in messages %}{{ turn(m.role, m.content, close=not loop.last) }}{% endfor %}"
        "{% call turn('x', 'y') %}called{% endcall %}"
    ),
    "tests": (
        "{{ tools is none }}{{ date is not defined }}{{ messages[0].content is string }}"
        "{{ messages is iterable }}{{ messages[0] is mapping }}{{ messages is sequence }}"
        "{{ 4 is divisibleby 2 }}{{ 1 is odd }}{{ 'a' in 'abc' and 'x' not in messages[0] }}"
        "{{ 'user' is in ['user'] }}{{ tools is false }}{{ 3 is number and 3 > 2 >= 2 }}"
    ),
    "blocks of text": (
        "{% set text %}\n  {{ bos_token }}\n  line\n{% endset %}{{ text | indent(2) }}"
        "{% filter upper %}{{ messages[0].role }}{% endfilter %}\n"
        "    {%- if true -%}   {{ 'x' }}   {%- endif -%}\n  {# gone #}\n"
        "{% raw %}{{ raw }}{% endraw %}\n"
    ),
    "breaks": (
        "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m.role }}"
        "{% if loop.index == 2 %}{% break %}{% endif %}{{ loop.cycle('a', 'b') }}"
        "{{ loop.previtem.role }}{{ loop.nextitem.role }}{{ loop.revindex }}{{ loop.length }}"
        "{% else %}none{% endfor %}"
    ),
    "filtered loops": (
        "{% for m in messages if m.role != 'system' %}{{ loop.index }}{{ m.role }}{{ loop.last }}"
        "{% endfor %}{% for key, value in messages[3].items() %}{{ key }}={{ value }};{% endfor %}"
        "{% for i in range(3, 0, -1) %}{{ i }}{% endfor %}"
        "{% for c in [] %}{% else %}empty{% endfor %}"
        "{% for x in [[1, [2]], [3]] recursive %}{{ loop(x) if x is sequence else x }}{% endfor %}"
    ),
    "formats": (
        "{{ '%s of %03d: %.2f' % ('a', 7, 0.5) }}{{ '%s' | format(3) }}"
        "{{ '{:>5}|{}'.format('a', 1) }}"
        "{{ 'a,b'.split(',') | length }}{{ 2 ** 10 + 7 // 2 * 3 - 1 % 2 }}"
        "{{ 'ab' * 2 ~ 1 ~ ([1] + [2]) }}"
        "{{ 'A-b'.replace('-', '_').lower().title() }}{{ '7' | int + 1 }}{{ 'x' if false }}"
        "{{ [1, 2][::-1] }}{{ -1 }}{{ 1.5 | string }}{{ {'a': 1}['a'] }}{{ (1, 2) }}"
    ),
    "dates": (
        "{{ strftime_now('%d %b %Y') }}{% if not date %}{% set date = '1 Jul' %}{% endif %}"
        "{{ date }}"
    ),
    "undefined": (
        "{{ nothing }}{{ messages[0].nothing }}{{ nothing | default('x') }}{{ nothing is defined }}"
    ),
}


def usual(template: str, messages, add_generation_prompt: bool = True) -> str:
    """Render as the programs do for which these templates were written."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )

    def raise_exception(message):
        raise TemplateError(message)

    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    environment.filters["tojson"] = lambda value, ensure_ascii=False, **options: json.dumps(
        value, ensure_ascii=ensure_ascii, **options
    )
    values = {"tools": None, "documents": None, "bos_token": BOS, "eos_token": EOS}
    return environment.from_string(template).render(
        messages=messages, add_generation_prompt=add_generation_prompt, **values
    )


@pytest.mark.parametrize("name", CONSTRUCTS)
def test_templates_render_as_everywhere_else(name):
    template = CONSTRUCTS[name]
    for messages in (CONVERSATION, CONVERSATION[:1] + CONVERSATION[3:] * 3):
        try:
            expected = usual(template, messages)
        except TemplateError as error:
            with pytest.raises(MobileMoEError, match=str(error)):
                ChatFormat(template, BOS, EOS).render(messages)
        else:
            assert ChatFormat(template, BOS, EOS).render(messages) == expected


def test_what_is_marked_for_training_is_printed():
    template = (
        "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %};{% endfor %}"
    )
    assert ChatFormat(template, "").render(MESSAGES * 2) == "hi;hi;"


def test_an_exception_of_the_template_is_the_reason():
    template = "{{ raise_exception('no\x1b[31m system\n turn ' ~ 'x' * 1000) }}"
    with pytest.raises(MobileMoEError) as caught:
        ChatFormat(template, "").render(MESSAGES)
    assert caught.value.message.startswith("the chat template failed: no\ufffd[31m system turn xxx")
    assert len(caught.value.message) < 400
    assert "chat_template.jinja" in caught.value.hint


def test_a_long_conversation_is_far_from_the_limits():
    """A thousand turns, or one of a megabyte, through the costliest construct."""
    many = [{"role": "user", "content": f"message {number}"} for number in range(1000)]
    long = [{"role": "user", "content": "<think> a & b\n" * 70_000}]
    for name in ("system first", "last query", "thinking", "JSON", "a macro", "selections"):
        for messages in (many, long):
            padded = [*messages, *CONVERSATION]
            assert ChatFormat(CONSTRUCTS[name], BOS, EOS).render(padded) == usual(
                CONSTRUCTS[name], padded
            )


@pytest.fixture(scope="module")
def outcomes() -> dict[str, str]:
    """What became of every attack, in a process of little memory and time."""
    program = Path(__file__).with_name("chat_attacks.py")
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"status {done.returncode}: {done.stderr[-500:]}"
    return dict(zip(ATTACKS, json.loads(done.stdout), strict=True))


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
@pytest.mark.parametrize("template", ATTACKS, ids=lambda template: template[-40:])
def test_an_attack_on_time_or_memory_is_one_error(outcomes, template):
    assert outcomes[template].startswith("the chat template failed: ")
    assert ATTACKS[template] in outcomes[template]


def test_two_renderings_do_not_share_an_allowance():
    chat = ChatFormat("{% for i in range(50000) %}x{% endfor %}", "")
    assert {len(chat.render(MESSAGES)) for _ in range(5)} == {50000}


NESTED_VALUES = st.recursive(
    st.one_of(st.text(max_size=5), st.integers(-(10**9), 10**9), st.none()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(st.text(max_size=3), inner, max_size=4),
    ),
    max_leaves=30,
)


@settings(max_examples=200, deadline=None)
@given(NESTED_VALUES)
def test_a_value_costs_at_least_what_printing_it_does(value):
    """Printed strings may be quoted and escaped: four characters for one, and quotes."""
    work = Work(10**6)
    work.pay_whole(value)
    assert 4 * (10**6 - work.left) >= len(repr(value))


def test_nothing_is_paid_that_is_not_there():
    work = Work(10)
    work.pay(4)
    with pytest.raises(WorkLimitError, match="more work than allowed \\(10 units\\)"):
        work.pay(7)
    work.pay(6)
    assert work.left == 0
