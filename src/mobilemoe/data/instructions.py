"""Conversations made of the corpus: explain a name, finish a function, solve with steps.

They inherit the unit of the module or problem they come from, and with it the side of the
split. Phrasings are chosen by the hash of the name, so they depend on nothing else.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from hashlib import sha256
from textwrap import dedent, indent

from mobilemoe.data.documents import UNIT_MARK, Conversation
from mobilemoe.data.knowledge import Entry
from mobilemoe.data.maths import problem
from mobilemoe.data.prose import first_sentence
from mobilemoe.data.stdlib import Module, parse

SENTENCE_CHARS = (25, 300)
BODY_CHARS = (20, 500)
BODY_LINES = 14
PROMPT_CHARS = 700

_EXPLAIN = (
    "What does the {kind} `{name}` do?",
    "What is `{name}` in Python?",
    "Explain the {kind} `{name}` in one sentence.",
    "Describe `{name}` briefly.",
    "I found the {kind} `{name}`. What is it for?",
)
_FINISH = (
    "Finish this function:",
    "Write the body of this Python function.",
    "Complete the code below.",
    "Implement this function as its docstring says.",
)
_SOLVE = (
    "{} Show your steps.",
    "Solve step by step: {}",
    "{}",
    "{} Explain how you get the answer.",
)


def _phrasing(options: tuple[str, ...], name: str) -> str:
    return options[sha256(name.encode()).digest()[0] % len(options)]


def explanations(entries: list[Entry]) -> Iterator[Conversation]:
    """Yield "what does X do" for the public names of a module: the docstring's sentence."""
    for entry in entries:
        answer = first_sentence(entry.text)
        low, high = SENTENCE_CHARS
        if any(part.startswith("_") for part in entry.full_name.split(".")):
            continue
        sentence = answer[:1].isupper() and answer[-1:] in (".", "!", ")")
        if low <= len(answer) <= high and sentence and not answer.startswith("Internal"):
            name = f"{entry.module}{UNIT_MARK}explain {entry.name}"
            phrase = _phrasing(_EXPLAIN, name)
            question = phrase.format(kind=entry.kind, name=entry.full_name)
            yield Conversation("knowledge", question, answer, name)


def completions(module: Module) -> Iterator[Conversation]:
    """Yield "finish this function" for documented functions with short bodies.

    The answer is the body without its common indentation.
    """
    lines = module.source.split("\n")
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _is_documented(node):
            name = f"{module.name}{UNIT_MARK}finish {node.name} {node.lineno}"
            documentation = node.body[0]
            end = documentation.end_lineno or documentation.lineno
            head = dedent("\n".join(lines[node.lineno - 1 : end])).strip()
            body = dedent("\n".join(lines[end : node.end_lineno])).strip()
            if _fits(head, body) and _is_body(body):
                question = f"{_phrasing(_FINISH, name)}\n\n{head}"
                yield Conversation("code", question, body, name)


def _is_documented(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether a docstring on lines of its own is followed by more than a placeholder."""
    if ast.get_docstring(node) is None or len(node.body) < 2:
        return False
    documentation, first = node.body[:2]
    apart = node.lineno < documentation.lineno and (documentation.end_lineno or 0) < first.lineno
    return apart and not (len(node.body) == 2 and isinstance(first, ast.Pass))


def _is_body(text: str) -> bool:
    """Whether the text, indented, is the body of a function."""
    try:
        parse("async def f():\n" + indent(text, "    "))
    except SyntaxError:
        return False
    return True


def _fits(head: str, body: str) -> bool:
    low, high = BODY_CHARS
    short = low <= len(body) <= high and body.count("\n") < BODY_LINES
    return short and len(head) <= PROMPT_CHARS


def solutions(start: int, count: int, seed: int) -> Iterator[Conversation]:
    """Yield problems `start` to `start + count` of the stream `seed` with worked steps."""
    for index in range(start, start + count):
        task = problem(index, seed)
        name = f"{task.key}{UNIT_MARK}solve {seed}.{index}"
        question = _phrasing(_SOLVE, name).format(task.question)
        yield Conversation("math", question, task.solution, name)
