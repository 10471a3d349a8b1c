"""Renders foreign chat templates: nothing but text comes out, after a bounded amount of work.

Chat templates are programs from a downloaded file. Jinja's sandbox keeps them away from Python;
here only listed filters, methods and globals exist on top of that, and each pays for its work.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import lru_cache, wraps
from types import BuiltinMethodType, CodeType, MethodType
from typing import Any, NoReturn

from jinja2 import Environment, Template, TemplateError, Undefined, pass_context
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.filters import FILTERS
from jinja2.nodes import EvalContext, Node, Scope
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.tests import TESTS
from jinja2.utils import Namespace

from mobilemoe.checkpoint.chat_metering import PAY_STEP, PAY_TOP, PAY_WHOLE, add_payments
from mobilemoe.checkpoint.chat_work import PER_VALUE, Work, WorkLimitError

_Pay = Callable[..., None]

# For the constants that Jinja folds while it compiles; what costs more is done when rendering.
COMPILE_ALLOWANCE = 2**16
MAX_JSON_INDENT = 8
MAX_DATE_FORMAT = 100
_DATE_FORMAT = re.compile(r"(?:[^%]|%-?[aAbBcdeHIjmMpSUwWxXyYZz%])*")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Nothing is here that pads, repeats or rounds to a width given as a number.
_FILTERS_PER_ITEM = _words(
    "attr count d default first items last length list map reject rejectattr reverse safe select "
    "selectattr"
)
_FILTERS_IN_FULL = _words(
    "capitalize dictsort float int lower max min sort string title unique upper"
)
_TESTS_IN_FULL = _words(
    "in == eq equalto != ne > gt greaterthan ge >= < lt lessthan <= le divisibleby odd even"
)
_METHODS: Mapping[type, frozenset[str]] = {
    str: _words(
        "strip lstrip rstrip split rsplit splitlines partition rpartition startswith endswith "
        "removeprefix removesuffix find rfind index rindex count upper lower title capitalize "
        "swapcase casefold isalnum isalpha isascii isdecimal isdigit islower isnumeric isspace "
        "istitle isupper replace join"
    ),
    dict: _words("get items keys values"),
    list: _words("count index"),
    tuple: _words("count index"),
    LoopContext: _words("cycle changed"),
}
_SEARCHES_FROM_THE_END = _words("strip lstrip rstrip rsplit rpartition rfind rindex")


def render_sandboxed(
    template: str, variables: Mapping[str, Any], allowance: int, max_output: int
) -> Iterator[str]:
    """Yield the text of `template`, piece by piece.

    `allowance`: work in the units of chat_work. `max_output`: characters.

    Raises:
        Exception: of many kinds, for a template that fails, leaves its sandbox or costs too much.
    """
    environment = _Sandbox(Work(allowance))
    code = _compiled(template)
    compiled = Template.from_code(environment, code, environment.make_globals(None))
    for piece in compiled.generate(variables):
        max_output -= len(piece)
        if max_output < 0:
            raise WorkLimitError("it prints more than a prompt can hold")
        yield piece


@lru_cache(maxsize=8)
def _compiled(template: str) -> CodeType:
    environment = _Sandbox(Work(COMPILE_ALLOWANCE))
    tree = add_payments(environment.parse(template), environment)
    return environment.compile(tree, filename="<template>")


class _Generation(Extension):
    """`{% generation %}`: marks what is learnt in training; nothing to do with rendering."""

    tags = {"generation"}  # noqa: RUF012, the base class has it so

    def parse(self, parser: Parser) -> Node:
        lineno = next(parser.stream).lineno
        return Scope(parser.parse_statements(("name:endgeneration",), True), lineno=lineno)


class _PlainNamespace(Namespace):
    """A namespace that prints its kind and not its content, which may hold itself."""

    def __repr__(self) -> str:
        return "<Namespace>"


class _Format:
    """`text.format`, paid for."""

    def __init__(self, work: Work, text: str, function: Callable[..., str]) -> None:
        self._work, self._text, self._function = work, text, function

    def __call__(self, *args: Any, **kwargs: Any) -> str:
        self._work.pay_format(self._text, args, kwargs)
        return self._function(*args, **kwargs)


class _Sandbox(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(("+", "-", "*", "/", "//", "%", "**"))

    def __init__(self, work: Work) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,
            cache_size=0,
            extensions=[loopcontrols, _Generation],
        )
        self._work = work
        self.filters = self._paid_filters()
        tests: Mapping[str, Any] = TESTS
        self.tests = {
            name: _paid(work.pay_all if name in _TESTS_IN_FULL else work.pay_each, test)
            for name, test in tests.items()
        }
        self.globals = {
            "range": self._range,
            "dict": dict,
            "namespace": _PlainNamespace,
            "raise_exception": _raise_exception,
            "strftime_now": _strftime_now,
        }
        self._functions = tuple(self.globals.values())

    def _paid_filters(self) -> dict[str, Callable[..., Any]]:
        work = self._work
        payments: dict[str, _Pay] = dict.fromkeys(_FILTERS_PER_ITEM, work.pay_each)
        payments |= dict.fromkeys(_FILTERS_IN_FULL, work.pay_all)
        payments |= {"format": work.pay_format, "indent": work.pay_indent, "join": work.pay_join}
        payments |= {"replace": work.pay_replace, "trim": work.pay_product}
        guards = {PAY_WHOLE: work.pay_whole, PAY_TOP: work.pay_top, PAY_STEP: work.pay}
        return {
            **{name: _paid(pay, FILTERS[name]) for name, pay in payments.items()},
            **{name: _guard(pay) for name, pay in guards.items()},
            "tojson": self._tojson,
        }

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        self._work.pay_operator(operator, left, right)
        return super().call_binop(context, operator, left, right)

    def getitem(self, obj: Any, argument: Any) -> Any:
        self._work.pay_whole(argument)
        return super().getitem(obj, argument)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        function = super().wrap_str_format(value)
        return function and _Format(self._work, value.__self__, function)

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(obj, Undefined):  # which says itself what is missing
            self._pay_call(obj, *args, *kwargs.values())
        return super().call(context, obj, *args, **kwargs)

    def _pay_call(self, function: Any, *values: Any) -> None:
        if isinstance(function, Macro | LoopContext | _Format):
            return  # its body pays
        if any(function is own for own in self._functions):
            self._work.pay_whole(values)
        elif _is_listed_method(function):
            self._pay_method(function.__self__, function.__name__, values)
        else:
            name = getattr(function, "__name__", type(function).__name__)
            raise SecurityError(f"a chat template may not call {name}")

    def _pay_method(self, owner: Any, name: str, values: tuple[Any, ...]) -> None:
        self._work.pay_top(owner)
        self._work.pay_whole(values)
        if name == "replace":
            self._work.pay_replace(owner, *values)
        elif name == "join":
            self._work.pay_join(values[0] if values else (), owner)
        elif name in _SEARCHES_FROM_THE_END:
            self._work.pay_product(owner, *values)
        elif name in ("count", "index"):
            self._work.pay_whole(owner)

    def _range(self, *bounds: int) -> range:
        numbers = range(*bounds)
        self._work.pay(len(numbers))
        return numbers

    def _tojson(
        self,
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        if indent is not None and not (isinstance(indent, int) and indent <= MAX_JSON_INDENT):
            raise WorkLimitError(f"tojson indents by {indent!r:.20}; allowed: {MAX_JSON_INDENT}")
        encoder = json.JSONEncoder(
            ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )
        chunks = []
        for chunk in encoder.iterencode(value):
            self._work.pay(PER_VALUE + len(chunk))
            chunks.append(chunk)
        return "".join(chunks)


def _paid(pay: _Pay, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter or test that pays for its arguments first, and never answers lazily."""

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        given = args[1:] if isinstance(args[0], Context | EvalContext | Environment) else args
        pay(*given, **kwargs)
        result = function(*args, **kwargs)
        return list(result) if isinstance(result, Iterator) else result

    return run


def _guard(pay: Callable[[Any], None]) -> Callable[..., Any]:
    @pass_context  # so that Jinja does not evaluate it while it compiles
    def run(_: Context, value: Any) -> Any:
        pay(value)
        return value

    return run


def _is_listed_method(function: Any) -> bool:
    if not isinstance(function, BuiltinMethodType | MethodType):
        return False
    owner, name = function.__self__, function.__name__
    return any(isinstance(owner, kind) and name in names for kind, names in _METHODS.items())


def _raise_exception(message: Any) -> NoReturn:
    raise TemplateError(str(message))


def _strftime_now(date_format: Any) -> str:
    text = str(date_format)
    if len(text) > MAX_DATE_FORMAT or not _DATE_FORMAT.fullmatch(text):
        raise SecurityError(f"strftime_now has the format {text!r:.60}")
    return datetime.now().strftime(text)
