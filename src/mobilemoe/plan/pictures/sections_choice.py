"""The page's head, and its sections on the choice: reasons, doubts, and what it all rests on."""

from __future__ import annotations

from mobilemoe.page.markup import (
    count,
    escape,
    megabytes,
    paragraph,
    significant,
    table,
)
from mobilemoe.plan.pictures.axis import count_text, power_text
from mobilemoe.plan.pictures.data import PlanData
from mobilemoe.plan.pictures.front import candidate_name
from mobilemoe.plan.pictures.inputs import Input, plan_inputs
from mobilemoe.plan.pictures.sections import NO_LOSS
from mobilemoe.plan.search import Plan, Sensitivity


def headline(data: PlanData) -> str:
    """Return the question, the answer as a title and a sentence, and its key numbers."""
    plan = data.plan
    chosen, asked = plan.chosen, plan.constraints
    parts = [f"{megabytes(asked.memory_bytes)} for weights and KV cache"]
    parts.append(f"{count(asked.context)} tokens of context")
    if asked.device is not None:
        parts.append(escape(asked.device.title))
    if asked.train_flops is not None:
        parts.append(f"{escape(power_text(asked.train_flops))} training FLOPs")
    eyebrow = " · ".join(["mobilemoe plan", *parts])
    is_given = asked.train_flops is not None or asked.tokens is not None
    trained = "trained on" if is_given else "compared as if trained on"
    text = (
        f"{count_text(chosen.total_params)} parameters, {count_text(chosen.active_params)} for "
        f"each token, {trained} {count_text(chosen.tokens)} tokens: {_experts(plan)}."
    )
    return (
        f'<p class="eyebrow">{eyebrow}</p><h1>{escape(candidate_name(chosen))}</h1>'
        + paragraph(text, "lede")
        + _tiles(data)
    )


def _experts(plan: Plan) -> str:
    shape = plan.chosen.shape
    if shape.is_dense:
        return "a dense model"
    shared = " and one shared expert" if shape.shared_expert else ""
    return f"{shape.top_k} of {shape.routed_experts} routed experts{shared} for each token"


def _tiles(data: PlanData) -> str:
    chosen = data.plan.chosen
    loss = NO_LOSS if chosen.loss is None else f"{chosen.loss.loss:.3f}"
    doubt = f"give or take {data.law.rmse:g}"
    if chosen.loss is not None and chosen.loss.outside:
        how = "extrapolated" if chosen.loss.extrapolated else "asked at the edge of its range"
        doubt = f"the law was not fitted here: {how}"
    tiles = [
        ("Predicted loss", loss, doubt if chosen.loss is not None else "out of the law's range"),
        (
            "Memory",
            megabytes(chosen.memory_bytes),
            f"{megabytes(chosen.weight_bytes)} weights, {megabytes(chosen.kv_bytes)} KV",
        ),
        ("Training", escape(power_text(chosen.training_flops)), "FLOPs, 6 N D"),
    ]
    if chosen.decode_tok_s is not None:
        depth = f"tokens/s at {count(data.plan.constraints.depth)} in the cache"
        tiles.insert(2, ("Decode", significant(chosen.decode_tok_s), depth))
    cells = "".join(
        f'<div><dt>{name}</dt><dd class="v">{value}</dd><dd class="w">{note}</dd></div>'
        for name, value, note in tiles
    )
    return f'<dl class="tiles">{cells}</dl>'


def choice_section(plan: Plan) -> str:
    """Return a reason for every number, and the rules that led to the choice."""
    reasons = [
        [f"<code>{_breakable(each.name)}</code>", _value(each.value), escape(each.why)]
        for each in plan.reasons
    ]
    steps = [[escape(s.step), escape(s.rule), count(s.left)] for s in plan.funnel]
    parts = []
    if reasons:
        head = ["Number", "Value", "Why"]
        parts.append(table(head, reasons, "A reason for every number", "reasons"))
    if steps:
        head = ["Rule", "What it says", "Left"]
        parts.append("<h3>From every shape to one</h3>")
        parts.append(table(head, steps, "The rules of the search", "rules"))
    parts += [paragraph(escape(note), "note") for note in plan.notes]
    return "".join(parts) or paragraph("The plan gives no reasons.", "absent")


def _breakable(name: str) -> str:
    """Let a key of config.json break after its underscores."""
    return escape(name).replace("_", "_<wbr>")


def _value(value: int | float | str) -> str:
    if isinstance(value, str):
        return escape(value)
    return count_text(value) if value >= 1e9 else f"{value:,}"


def doubt_section(plan: Plan) -> str:
    """Return how sure the choice is, and what would change it."""
    sentences = "".join(f"<li>{escape(each)}</li>" for each in plan.confidence)
    rows = [_sensitivity(each) for each in plan.sensitivity]
    head = ["If", "then", "Loss"]
    changes = table(head, rows, "What would change the choice", "changes") if rows else ""
    return (f"<ul>{sentences}</ul>" if sentences else "") + changes


def _sensitivity(each: Sensitivity) -> list[str]:
    if each.chosen is None:
        then = '<span class="bad">nothing is feasible</span>'
    elif each.changes:
        then = f"<b>{escape(candidate_name(each.chosen))}</b>"
    else:
        then = "the same choice"
    return [escape(each.change), then, NO_LOSS if each.loss is None else f"{each.loss:.3f}"]


def inputs_section(data: PlanData) -> str:
    """Return every input with its kind (measured, published, assumed, stated) and source."""
    text = (
        "Measured: by this project or by your own runs. Published: with its source. Assumed: a "
        "default of ours, to be replaced by what you know. Stated: given with the question."
    )
    rows = [_input(each) for each in plan_inputs(data)]
    head = ["Input", "Value", "Kind", "Source"]
    return paragraph(text) + table(head, rows, "What the page rests on", "inputs")


def _input(each: Input) -> list[str]:
    kind = f"<b>{escape(each.kind)}</b>" if each.kind == "assumed" else escape(each.kind)
    name = f"{escape(each.part)}: {escape(each.name)}"
    return [name, escape(each.value), kind, escape(each.source)]
