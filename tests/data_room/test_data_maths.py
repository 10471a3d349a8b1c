"""Generated problems against an evaluator that sees only the question's text."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from math import gcd

import pytest

from mobilemoe.data.instructions import solutions
from mobilemoe.data.maths import MAKERS, math_documents, problem
from mobilemoe.data.word_problems import WORD_MAKERS

KINDS = len(MAKERS) + len(WORD_MAKERS)
NUMBER = re.compile(r"\d+")


def _value(expression: str) -> Fraction:
    """Evaluate + - * / and brackets exactly."""
    assert re.fullmatch(r"[\d+\-*/(). ]+", expression), expression
    return Fraction(eval(NUMBER.sub(r"Fraction(\g<0>)", expression), {"Fraction": Fraction}))


def _next_term(question: str) -> int:
    terms = [int(term) for term in NUMBER.findall(question)]
    if len(terms) == 4:
        return terms[3] + terms[1] - terms[0]
    return terms[2] * terms[1] // terms[0]


def _sharing(question: str) -> int:
    total, friends = (int(n) for n in NUMBER.findall(question))
    return total % friends


# What the question's numbers make, per word that starts a problem's key.
RULES: dict[str, Callable[..., int]] = {
    "divide": lambda a, b: a // b,
    "remainder": lambda a, b: a % b,
    "gcd": gcd,
    "change": lambda money, count, price: money - count * price,
    "distance": lambda speed, hours: speed * hours,
    "area": lambda a, b: a * b,
    "perimeter": lambda a, b: 2 * (a + b),
    "saving": lambda start, weekly, price: (price - start) // weekly,
    "discount": lambda price, percent: price - price * percent // 100,
    "average": lambda *values: sum(values) // 4,
    "together": lambda first, extra: 2 * first + extra,
    "percent": lambda percent, number: percent * number // 100,
    "sharing": lambda total, friends: total % friends,
}


def _expected(kind: str, question: str) -> Fraction | int:
    numbers = [int(n) for n in NUMBER.findall(question)]
    if kind in ("percent", "divide", "remainder", "gcd") or kind in RULES:
        return RULES[kind](*numbers)
    if kind == "sequence":
        return _next_term(question)
    return _value(re.search(r"[\d(][\d+\-*/() ]*", question)[0])  # type: ignore[index]


@pytest.mark.parametrize("kind", range(KINDS))
def test_answers_and_steps_are_right(kind: int) -> None:
    for index in range(kind, 150 * KINDS, KINDS):
        task = problem(index, seed=11)
        name = task.key.split()[0]
        if name == "equation":
            _check_equation(task.question, Fraction(task.answer))
        else:
            assert Fraction(task.answer) == _expected(name, task.question), task
        for step in task.steps:
            _check_step(step, Fraction(task.answer))
        assert task.solution.endswith(f"\nAnswer: {task.answer}")


def _check_equation(question: str, x: Fraction) -> None:
    left, right = re.search(r"([\dx+\- ]+)=([\dx+\- ]+)", question).groups()  # type: ignore[union-attr]
    assert _substitute(left, x) == _substitute(right, x), question


def _substitute(side: str, x: Fraction) -> Fraction:
    side = re.sub(r"(\d)x", r"\1*x", side)
    return _value(side.replace("x", f"({x})"))


def _check_step(step: str, x: Fraction) -> None:
    """Every "a = b = c" in a step must hold."""
    for clause in step.split(": ")[-1].split(", "):
        if "=" in clause:
            values = {_substitute(side, x) for side in clause.split(" = ")}
            assert len(values) == 1, step


def test_steps_carry_and_borrow() -> None:
    texts = [problem(index, 5).solution for index in range(0, 40 * KINDS, KINDS)]
    assert any("carry 1" in text for text in texts)
    texts = [problem(index, 5).solution for index in range(1, 40 * KINDS, KINDS)]
    assert any("borrow 1" in text for text in texts)


def test_problems_are_a_pure_function_of_index_and_seed() -> None:
    assert list(math_documents(50, 7)) == list(math_documents(80, 7))[:50]
    assert [problem(i, 7) for i in range(22)] != [problem(i, 8) for i in range(22)]
    # pinned: the same on every machine and every version
    assert problem(0, 0).question == "What is 611 + 6310?"
    assert (
        problem(21, 0).question
        == "Dina has 37 stamps. Jonas has 48 more than Dina. How many stamps do they have together?"
    )


def test_one_problem_has_one_unit_in_documents_and_conversations() -> None:
    document = next(math_documents(1, 0))
    talk = next(solutions(0, 1, 0))
    assert document.unit == talk.unit == problem(0, 0).key
    assert document.text.endswith(talk.assistant)
