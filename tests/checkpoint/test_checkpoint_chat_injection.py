"""Goal R4: no code from files. A chat template that tries to run some leaves no trace.

Each payload would create a canary file. A control run in Jinja's plain environment shows that
the payload itself works, so that a green test means a sandbox and not a typing error.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import jinja2
import pytest

from mobilemoe.checkpoint import ChatFormat
from mobilemoe.errors import MobileMoEError

USER = {"role": "user", "content": "hi"}
OPEN = "['__builtins__']['open']('CANARY', 'w')"
POPEN = "['__builtins__']['__import__']('os').system('touch CANARY')"
FIND_OPEN = (
    "{% for c in ''.__class__.__mro__[1].__subclasses__() %}"
    "{% if c.__name__ == 'Popen' %}{{ c('touch CANARY', shell=true).wait() }}{% endif %}"
    "{% endfor %}"
)
WORK_IN_PLAIN_JINJA = [
    "{{ cycler.__init__.__globals__" + OPEN + " }}",
    "{{ lipsum.__globals__" + OPEN + " }}",
    "{{ lipsum.__globals__['os'].system('touch CANARY') }}",
    "{{ joiner.__init__.__globals__.os.popen('touch CANARY').read() }}",
    "{{ namespace.__init__.__globals__" + POPEN + " }}",
    "{{ raise_exception.__globals__" + OPEN + " }}",
    "{{ strftime_now.__globals__" + POPEN + " }}",
    "{{ self.__init__.__globals__" + OPEN + " }}",
    "{{ nothing.__init__.__globals__" + OPEN + " }}",
    "{{ (lipsum | attr('__globals__'))" + OPEN + " }}",
    "{{ lipsum['__glo' ~ 'bals__']" + OPEN + " }}",
    "{{ (lipsum | attr(['__', 'globals', '__'] | join))['os'] | attr('system')('touch CANARY') }}",
    "{{ ([lipsum] | map(attribute='__globals__') | first)" + OPEN + " }}",
    "{% macro m() %}{% endmacro %}{{ m._func.__globals__['environment'].__init__.__globals__"
    + OPEN
    + " }}",
    "{% for x in [1] %}{{ loop.__init__.__globals__" + OPEN + " }}{% endfor %}",
    "{% set ns = namespace(f=lipsum) %}{{ ns.f.__globals__" + OPEN + " }}",
    FIND_OPEN,
]
# These reach for more than Jinja offers at all.
OTHERS = [
    "{% import os %}{{ os.system('touch CANARY') }}",
    "{% include 'CANARY' %}",
    "{% extends 'CANARY' %}",
    "{{ open('CANARY', 'w') }}",
    "{{ __import__('os').system('touch CANARY') }}",
    '{{ eval(\'open("CANARY", "w")\') }}',
    "{{ '{0.__globals__[__builtins__]}'.format(raise_exception) }}",
    "{{ '{0.__init__.__globals__}'.format(namespace) }}",
    "{{ '%(x)s' | format(x=raise_exception.__globals__) }}",
    "{{ messages.__class__.__init__.__globals__ }}",
    "{{ dict.__base__.__subclasses__() }}",
    "{{ range.__self__ }}{{ range.__func__.__globals__" + OPEN + " }}",
    "{{ messages.append({'role': 'system', 'content': 'obey'}) }}",
    "{{ messages[0].update(role='system') }}",
    "{{ messages | map('attr', '__class__') | map('attr', '__init__') | list }}",
    "{{ ''.join.__self__.__class__.__mro__ }}",
    "{{ 'x'.encode() }}",
    "{{ 'x'.translate({120: 'y'}) }}",
    "{{ (1).to_bytes(10**9, 'little') }}",
    "{{ {}.fromkeys(range(10)) }}",
    "{{ messages.copy() }}",
    "{{ bos_token.__class__('x') }}",
    "{{ environment.from_string('x') }}{{ context.environment }}",
]


def planted(payload: str, folder: Path) -> tuple[str, Path]:
    canary = folder / "canary"
    return payload.replace("CANARY", str(canary)), canary


@pytest.mark.parametrize("payload", [*WORK_IN_PLAIN_JINJA, *OTHERS])
def test_no_template_runs_code(tmp_path, payload):
    template, canary = planted(payload, tmp_path)
    messages = [dict(USER)]
    try:
        text = ChatFormat(template, "<s>").render(messages)
    except MobileMoEError as error:
        text = error.message
    assert not canary.exists()
    assert "__builtins__" not in text
    assert messages == [USER]


@pytest.mark.parametrize("payload", WORK_IN_PLAIN_JINJA)
def test_the_payloads_work_where_there_is_no_sandbox(tmp_path, payload):
    template, canary = planted(payload, tmp_path)
    environment = jinja2.Environment()
    environment.globals |= {"raise_exception": planted, "strftime_now": planted}
    with suppress(jinja2.TemplateError, TypeError, OSError):  # after the deed
        environment.from_string(template).render(messages=[USER])
    assert canary.exists()


def test_what_a_user_writes_is_never_a_template(tmp_path):
    for payload in WORK_IN_PLAIN_JINJA:
        text, canary = planted(payload, tmp_path)
        message = {"role": text, "content": text}
        for template in ("{{ messages[0].content }}", "{{ messages[0].role }}{{ bos_token }}"):
            assert ChatFormat(template, text).render([message]).startswith(text)
        assert not canary.exists()
