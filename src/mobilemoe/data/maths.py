"""The math domain: generated arithmetic with worked steps, correct by construction.

`problem(index, seed)` is a pure function, so any number of problems can be drawn and two
machines draw the same ones. Every step is an equation that holds as written. Only
`Random.random` is used: the other methods may change between versions of Python.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import gcd
from random import Random

from mobilemoe.data.documents import UNIT_MARK, Document


@dataclass(frozen=True)
class Problem:
    """A question, its worked steps and its answer, an integer or a fraction "a/b".

    `key` names the problem whatever its phrasing; it decides the side of the split.
    """

    key: str
    question: str
    steps: tuple[str, ...]
    answer: str

    @property
    def solution(self) -> str:
        """The steps, then "Answer: N"."""
        return "\n".join([*self.steps, f"Answer: {self.answer}"])


Maker = Callable[[Random], Problem]


def pick(rng: Random, low: int, high: int) -> int:
    """Return an integer of [low, high]."""
    return low + int(rng.random() * (high - low + 1))


def choose(rng: Random, options: tuple[str, ...]) -> str:
    """Return one of the options."""
    return options[pick(rng, 0, len(options) - 1)]


def problem(index: int, seed: int) -> Problem:
    """Return problem number `index` of the stream `seed`; the kinds take turns."""
    from mobilemoe.data.word_problems import WORD_MAKERS  # it is built from this file

    makers = MAKERS + WORD_MAKERS
    return makers[index % len(makers)](Random(f"mobilemoe math {seed} {index}"))


def math_documents(count: int, seed: int) -> Iterator[Document]:
    """Yield the first `count` problems as documents."""
    for index in range(count):
        task = problem(index, seed)
        text = f"Question: {task.question}\n{task.solution}"
        yield Document("math", f"{task.key}{UNIT_MARK}{seed}.{index}", text)


PLACES = ("ones", "tens", "hundreds", "thousands", "ten thousands")


def _ask(rng: Random, expression: str) -> str:
    phrase = choose(rng, ("Compute {}.", "What is {}?", "Work out {}.", "Calculate {}."))
    return phrase.format(expression)


def _operand(rng: Random) -> int:
    return pick(rng, 0, 10 ** pick(rng, 1, 4) - 1)


def addition(rng: Random) -> Problem:
    """Add in columns, with carries."""
    a, b = _operand(rng), _operand(rng)
    steps, carry = [], 0
    for place in range(max(len(str(a)), len(str(b)))):
        x, y = a // 10**place % 10, b // 10**place % 10
        total = x + y + carry
        extra = f" + {carry}" if carry else ""
        carry = total // 10
        tail = f", write {total % 10}, carry {carry}" if carry else f", write {total}"
        steps.append(f"{PLACES[place]}: {x} + {y}{extra} = {total}{tail}")
    if carry:
        steps.append(f"{PLACES[place + 1]}: write {carry}")
    steps.append(f"{a} + {b} = {a + b}")
    return Problem(f"add {a} {b}", _ask(rng, f"{a} + {b}"), tuple(steps), str(a + b))


def subtraction(rng: Random) -> Problem:
    """Subtract in columns, with borrows; the answer is not negative."""
    b, a = sorted((_operand(rng), _operand(rng)))
    steps, borrow = [], 0
    for place in range(len(str(a))):
        x, y = a // 10**place % 10, b // 10**place % 10
        taken = f" - {borrow}" if borrow else ""
        lent = x - y - borrow < 0
        start = f"1{x}" if lent else str(x)
        digit = (x - y - borrow) % 10
        note = ", borrow 1" if lent else ""
        steps.append(f"{PLACES[place]}: {start} - {y}{taken} = {digit}{note}")
        borrow = int(lent)
    steps.append(f"{a} - {b} = {a - b}")
    return Problem(f"subtract {a} {b}", _ask(rng, f"{a} - {b}"), tuple(steps), str(a - b))


def multiplication(rng: Random) -> Problem:
    """Multiply by the digits of the first factor."""
    a, b = pick(rng, 2, 999), pick(rng, 2, 99 if rng.random() < 0.3 else 9)
    parts = [int(d) * 10**i for i, d in enumerate(reversed(str(a))) if d != "0"]
    parts.reverse()
    steps = [f"{part} * {b} = {part * b}" for part in parts]
    if len(parts) > 1:
        steps.append(" + ".join(str(part * b) for part in parts) + f" = {a * b}")
    return Problem(f"multiply {a} {b}", _ask(rng, f"{a} * {b}"), tuple(steps), str(a * b))


def _long_division(a: int, b: int) -> list[str]:
    steps, rest = [], 0
    for digit in str(a):
        rest = rest * 10 + int(digit)
        if rest >= b:
            q = rest // b
            steps.append(f"{rest}: {b} * {q} = {b * q}, {rest} - {b * q} = {rest - b * q}")
            rest -= b * q
    return [*steps, f"{a} = {b} * {a // b} + {a % b}"]


def quotient(rng: Random) -> Problem:
    """Divide without a remainder."""
    b, q = pick(rng, 2, 12), pick(rng, 2, 400)
    a = b * q
    phrase = choose(rng, (f"What is {a} divided by {b}?", f"Divide {a} by {b}."))
    return Problem(f"divide {a} {b}", phrase, tuple(_long_division(a, b)), str(q))


def remainder(rng: Random) -> Problem:
    """Ask for the remainder of a long division."""
    b, a = pick(rng, 2, 12), pick(rng, 13, 2000)
    options = (f"What is the remainder of {a} divided by {b}?", f"Compute {a} mod {b}.")
    steps = tuple(_long_division(a, b))
    return Problem(f"remainder {a} {b}", choose(rng, options), steps, str(a % b))


def _fraction(rng: Random) -> Fraction:
    """Return a fraction in lowest terms that is not an integer."""
    bottom = pick(rng, 2, 12)
    top = pick(rng, 0, 1) * bottom + pick(rng, 1, bottom - 1)
    return Fraction(top, bottom)


def fraction_sum(rng: Random) -> Problem:
    """Add or subtract two fractions over their least common denominator."""
    x, y = _fraction(rng), _fraction(rng)
    sign = "-" if x > y and rng.random() < 0.5 else "+"
    common = x.denominator * y.denominator // gcd(x.denominator, y.denominator)
    tops = [int(x * common), int(y * common)]
    top = tops[0] + tops[1] if sign == "+" else tops[0] - tops[1]
    steps = [
        f"the common denominator is {common}",
        *(
            f"{f} = {n}/{common}"
            for f, n in zip((x, y), tops, strict=True)
            if f"{f}" != f"{n}/{common}"
        ),
        f"{tops[0]} {sign} {tops[1]} = {top}",
        *_reduced(top, common),
    ]
    answer = str(Fraction(top, common))
    question = _ask(rng, f"{x} {sign} {y}")
    return Problem(f"fractions {x} {sign} {y}", question, tuple(steps), answer)


def fraction_product(rng: Random) -> Problem:
    """Multiply two fractions."""
    x, y = _fraction(rng), _fraction(rng)
    top, bottom = x.numerator * y.numerator, x.denominator * y.denominator
    steps = [
        f"{x.numerator} * {y.numerator} = {top}",
        f"{x.denominator} * {y.denominator} = {bottom}",
        *_reduced(top, bottom),
    ]
    question = _ask(rng, f"{x} * {y}")
    return Problem(f"fractions {x} * {y}", question, tuple(steps), str(x * y))


def _reduced(top: int, bottom: int) -> list[str]:
    divisor = gcd(top, bottom)
    if divisor == 1:
        return []
    return [f"both are multiples of {divisor}: {top}/{bottom} = {Fraction(top, bottom)}"]


def percentage(rng: Random) -> Problem:
    """Take a percentage with an integer result."""
    percent = 5 * pick(rng, 1, 19)
    number = 20 * pick(rng, 1, 60)
    product = percent * number
    steps = (f"{number} * {percent} = {product}", f"{product} / 100 = {product // 100}")
    options = (f"What is {percent}% of {number}?", f"Find {percent} percent of {number}.")
    return Problem(f"percent {percent} {number}", choose(rng, options), steps, str(product // 100))


def arithmetic_sequence(rng: Random) -> Problem:
    """Continue a sequence with a constant difference."""
    start, step = pick(rng, 0, 60), pick(rng, 1, 25) * (1 if rng.random() < 0.7 else -1)
    terms = [start + max(0, -4 * step) + step * i for i in range(5)]
    steps = [f"{b} - {a} = {b - a}" for a, b in pairwise(terms[:3])]
    sign = "+" if step > 0 else "-"
    steps += [
        f"the difference is {step}",
        f"{terms[3]} {sign} {abs(step)} = {terms[4]}",
    ]
    shown = ", ".join(map(str, terms[:4]))
    options = (f"What comes next: {shown}?", f"Give the next term of the sequence {shown}.")
    return Problem(f"sequence {shown}", choose(rng, options), tuple(steps), str(terms[4]))


def geometric_sequence(rng: Random) -> Problem:
    """Continue a sequence with a constant ratio."""
    start, ratio = pick(rng, 1, 40), pick(rng, 2, 5)
    terms = [start * ratio**i for i in range(4)]
    steps = (
        f"{terms[1]} / {terms[0]} = {ratio}",
        f"{terms[2]} / {terms[1]} = {ratio}",
        f"{terms[2]} * {ratio} = {terms[3]}",
    )
    shown = ", ".join(map(str, terms[:3]))
    question = f"Each term is a multiple of the one before: {shown}. What is the next term?"
    return Problem(f"sequence {shown}", question, steps, str(terms[3]))


def linear_equation(rng: Random) -> Problem:
    """Solve a x + b = c."""
    a, x, b = pick(rng, 2, 12), pick(rng, 0, 30), pick(rng, 1, 50)
    minus = rng.random() < 0.5 and a * x >= b
    c = a * x - b if minus else a * x + b
    sign, undo = ("-", "+") if minus else ("+", "-")
    steps = (f"{a}x = {c} {undo} {b} = {a * x}", f"x = {a * x} / {a} = {x}")
    equation = f"{a}x {sign} {b} = {c}"
    question = choose(rng, ("Solve {} for x.", "Find x if {}.", "Solve: {}.")).format(equation)
    return Problem(f"equation {equation}", question, steps, str(x))


def two_sided_equation(rng: Random) -> Problem:
    """Solve a x + b = c x + d with a > c."""
    c, x, b = pick(rng, 1, 8), pick(rng, 0, 20), pick(rng, 1, 40)
    a = c + pick(rng, 1, 8)
    d = (a - c) * x + b
    left = f"{a - c}x" if a - c > 1 else "x"
    steps = [f"{a} - {c} = {a - c}", f"{left} = {d} - {b} = {d - b}"]
    if a - c > 1:
        steps.append(f"x = {d - b} / {a - c} = {x}")
    side = f"{c}x" if c > 1 else "x"
    equation = f"{a}x + {b} = {side} + {d}"
    return Problem(f"equation {equation}", f"Solve {equation} for x.", tuple(steps), str(x))


def precedence(rng: Random) -> Problem:
    """Evaluate an expression with brackets and mixed operations."""
    a, b, d = pick(rng, 1, 60), pick(rng, 2, 12), pick(rng, 1, 30)
    c = d + pick(rng, 1, 20)
    inner = c - d
    steps = (f"{c} - {d} = {inner}", f"{b} * {inner} = {b * inner}")
    last = f"{a} + {b * inner} = {a + b * inner}"
    expression = f"{a} + {b} * ({c} - {d})"
    answer = str(a + b * inner)
    return Problem(f"expression {expression}", _ask(rng, expression), (*steps, last), answer)


def common_divisor(rng: Random) -> Problem:
    """Find the greatest common divisor by Euclid's algorithm."""
    factor = pick(rng, 1, 12)
    small, large = sorted((factor * pick(rng, 2, 40), factor * pick(rng, 2, 40)))
    a, b, steps = large, small, []
    while b:
        steps.append(f"{a} = {b} * {a // b} + {a % b}")
        a, b = b, a % b
    question = f"What is the greatest common divisor of {large} and {small}?"
    return Problem(f"gcd {large} {small}", question, tuple(steps), str(a))


MAKERS: tuple[Maker, ...] = (
    addition,
    subtraction,
    multiplication,
    quotient,
    remainder,
    fraction_sum,
    fraction_product,
    percentage,
    arithmetic_sequence,
    geometric_sequence,
    linear_equation,
    two_sided_equation,
    precedence,
    common_divisor,
)
