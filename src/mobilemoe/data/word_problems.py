"""Word problems: everyday sentences around one or two operations, with worked steps."""

from __future__ import annotations

from random import Random

from mobilemoe.data.maths import Maker, Problem, choose, pick

NAMES = ("Ada", "Ben", "Chen", "Dina", "Emil", "Fatima", "Grace", "Hugo", "Ines", "Jonas", "Kim")
THINGS = ("apples", "pencils", "books", "stickers", "marbles", "cards", "tickets", "stamps")


def _word(kind: str, question: str, steps: list[str], answer: int) -> Problem:
    """Build a word problem; names and things are part of its key."""
    return Problem(f"{kind} {question}", question, tuple(steps), str(answer))


def change(rng: Random) -> Problem:
    """Ask for the money left after buying several equal things."""
    count, price = pick(rng, 2, 12), pick(rng, 2, 20)
    cost = count * price
    money = cost + pick(rng, 0, 60)
    name, things = choose(rng, NAMES), choose(rng, THINGS)
    question = (
        f"{name} has {money} dollars and buys {count} {things} for {price} dollars each. "
        "How many dollars are left?"
    )
    steps = [f"cost: {count} * {price} = {cost}", f"left: {money} - {cost} = {money - cost}"]
    return _word("change", question, steps, money - cost)


def distance(rng: Random) -> Problem:
    """Ask for a distance from speed and time."""
    speed, hours = pick(rng, 3, 120), pick(rng, 2, 12)
    vehicle = choose(rng, ("train", "car", "bicycle", "ship", "bus"))
    question = (
        f"A {vehicle} moves at {speed} km per hour for {hours} hours. How many km does it travel?"
    )
    steps = [f"distance: {speed} * {hours} = {speed * hours}"]
    return _word("distance", question, steps, speed * hours)


def sharing(rng: Random) -> Problem:
    """Ask what remains after sharing equally."""
    friends, total = pick(rng, 2, 9), pick(rng, 10, 200)
    name, things = choose(rng, NAMES), choose(rng, THINGS)
    question = (
        f"{name} shares {total} {things} equally among {friends} friends and keeps the rest. "
        f"How many {things} does {name} keep?"
    )
    each = total // friends
    steps = [
        f"each friend gets {each}: {friends} * {each} = {friends * each}",
        f"the rest: {total} - {friends * each} = {total - friends * each}",
    ]
    return _word("sharing", question, steps, total - friends * each)


def rectangle(rng: Random) -> Problem:
    """Ask for the area or perimeter of a rectangle."""
    a, b = pick(rng, 2, 60), pick(rng, 2, 30)
    if rng.random() < 0.5:
        question = f"A rectangle is {a} m long and {b} m wide. What is its area in square metres?"
        return _word("area", question, [f"area: {a} * {b} = {a * b}"], a * b)
    question = f"A rectangle is {a} m long and {b} m wide. What is its perimeter in metres?"
    half = a + b
    steps = [f"half: {a} + {b} = {half}", f"perimeter: 2 * {half} = {2 * half}"]
    return _word("perimeter", question, steps, 2 * half)


def saving(rng: Random) -> Problem:
    """Ask for the weeks needed to save for a price."""
    weekly, weeks, start = pick(rng, 2, 25), pick(rng, 2, 30), pick(rng, 0, 50)
    price = start + weekly * weeks
    name = choose(rng, NAMES)
    question = (
        f"{name} has {start} dollars and saves {weekly} dollars a week. "
        f"After how many weeks can {name} buy a game that costs {price} dollars?"
    )
    missing = price - start
    steps = [f"missing: {price} - {start} = {missing}", f"weeks: {missing} / {weekly} = {weeks}"]
    return _word("saving", question, steps, weeks)


def discount(rng: Random) -> Problem:
    """Ask for a price after a discount."""
    percent, price = 10 * pick(rng, 1, 9), 10 * pick(rng, 2, 60)
    off = price * percent // 100
    thing = choose(rng, ("coat", "bicycle", "lamp", "chair", "phone"))
    question = f"A {thing} costs {price} dollars. What does it cost after a discount of {percent}%?"
    steps = [
        f"discount: {price} * {percent} / 100 = {off}",
        f"price: {price} - {off} = {price - off}",
    ]
    return _word("discount", question, steps, price - off)


def average(rng: Random) -> Problem:
    """Ask for the mean of four numbers, an integer."""
    mean = pick(rng, 5, 80)
    spread = [pick(rng, -5, 5) for _ in range(3)]
    values = [mean + d for d in spread] + [mean - sum(spread)]
    values = values if min(values) >= 0 else [mean] * 4
    total = sum(values)
    shown = ", ".join(map(str, values[:3])) + f" and {values[3]}"
    steps = [" + ".join(map(str, values)) + f" = {total}", f"{total} / 4 = {mean}"]
    return _word("average", f"What is the average of {shown}?", steps, mean)


def more_than(rng: Random) -> Problem:
    """Ask for a total from a difference."""
    first, extra = pick(rng, 2, 90), pick(rng, 1, 60)
    one, two = choose(rng, NAMES[:5]), choose(rng, NAMES[5:])
    things = choose(rng, THINGS)
    question = (
        f"{one} has {first} {things}. {two} has {extra} more than {one}. "
        f"How many {things} do they have together?"
    )
    second = first + extra
    steps = [
        f"{two}: {first} + {extra} = {second}",
        f"together: {first} + {second} = {first + second}",
    ]
    return _word("together", question, steps, first + second)


WORD_MAKERS: tuple[Maker, ...] = (
    change,
    distance,
    sharing,
    rectangle,
    saving,
    discount,
    average,
    more_than,
)
