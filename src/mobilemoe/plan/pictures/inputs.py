"""Every number that a plan's page rests on, with its kind and its source."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

from mobilemoe.plan.law import MoELaw, published_law
from mobilemoe.plan.pictures.cost import BATCH_TOKENS, CONTEXT
from mobilemoe.plan.pictures.data import PlanData

PAPER = "arXiv 2605.27358"
_COEFFICIENTS = ("a", "delta", "alpha", "gamma", "b", "omega", "beta", "zeta", "c", "rmse")


@dataclass(frozen=True)
class Input:
    """One number: its part of the page, value with unit, kind, and why to believe it.

    `kind` is "measured", "published", "assumed" or "stated" (by whoever asked).
    """

    part: str
    name: str
    value: str
    kind: str
    source: str


def plan_inputs(data: PlanData) -> tuple[Input, ...]:
    """Return the inputs of the question, the law, the device and the cluster, in that order."""
    rows = [*_asked(data), *_law(data.law), *_device(data), *_cluster(data)]
    return tuple(rows)


def _asked(data: PlanData) -> Iterator[Input]:
    asked = data.plan.constraints
    for field in fields(asked):
        value = getattr(asked, field.name)
        if field.name == "device" or value is None:
            continue
        default = value == field.default
        source = "the planner's default" if default else "given with the question"
        kind = "assumed" if default else "stated"
        yield Input("question", field.name, _text(value), kind, source)


def _law(law: MoELaw) -> Iterator[Input]:
    is_published = law == published_law()
    kind = "published" if is_published else "measured"
    source = law.source or "a fit to runs of one's own"
    for name in _COEFFICIENTS:
        yield Input("law", name, _text(getattr(law, name)), kind, source)
    source = f"{PAPER}: 6 FLOPs per active parameter and token"
    yield Input("law", "training FLOPs", "6 N D", "published", source)


def _device(data: PlanData) -> Iterator[Input]:
    if data.latencies is None:
        return
    for name, constant in data.latencies.inputs:
        value = f"{_text(constant.value)} {constant.unit}"
        yield Input("device", name, value, constant.origin, constant.source)


def _cluster(data: PlanData) -> Iterator[Input]:
    for each in data.costs.inputs:
        yield Input(
            "cluster", each.name, f"{_text(each.value)} {each.unit}", each.kind, each.source
        )
    yield Input("cluster", "context", f"{CONTEXT} tokens", "published", f"{PAPER}, pre-training")
    source = "our choice; small runs take less"
    yield Input("cluster", "batch", f"{_text(BATCH_TOKENS)} tokens", "assumed", source)
    yield Input("cluster", "GPUs", str(data.costs.gpus), "stated", "given with the question")


def _text(value: object) -> str:
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, int | float):
        return f"{value:,}" if isinstance(value, int) and value < 10**7 else f"{value:.6g}"
    if isinstance(value, tuple):
        return ", ".join(_text(each) for each in value)
    return str(value)
