"""The sections on making the model: design, training, quantisation, experts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from mobilemoe.demo.figures import heldout_figure, loss_figure
from mobilemoe.demo.figures_device import perplexity_figure, seeds_figure
from mobilemoe.demo.figures_model import HEAT_CLASSES, architecture_figure, experts_figure
from mobilemoe.demo.schema import FunnelStep, Quantization, Report, SeedRow, Shape, Stage
from mobilemoe.page.markup import (
    MINUS,
    MISSING,
    change,
    count,
    duration,
    escape,
    figure,
    finite,
    finites,
    megabytes,
    not_measured,
    paragraph,
    percent,
    short_count,
    table,
)

_SHAPE_ROWS = (
    ("Total parameters", "total_params"),
    ("Active per token", "active_params"),
    ("INT4 bytes", "weight_bytes_int4"),
    ("BF16 bytes", "weight_bytes_bf16"),
    ("KV bytes per token", "kv_bytes_per_token"),
    ("FLOPs per token", "flops_per_token"),
    ("Hidden size", "hidden_size"),
    ("Layers", "num_hidden_layers"),
    ("Query heads", "num_attention_heads"),
    ("KV heads", "num_key_value_heads"),
    ("Routed experts", "num_local_experts"),
    ("Experts per token", "num_experts_per_tok"),
    ("Expert width", "intermediate_size"),
    ("Shared or dense width", "intermediate_size_mlp"),
    ("Vocabulary", "vocab_size"),
)


def design_section(report: Report) -> str:
    """Return the funnel from the budget to one architecture, beside its dense twin."""
    design = report["design"]
    budget = design["budget"]
    minutes = finite(budget["train_minutes"])
    limits = f"{megabytes(budget['memory_bytes'])} of memory at a context of "
    limits += f"{count(budget['context'])} tokens, {short_count(budget['flops_per_token'])} FLOPs "
    limits += f"per token, {MISSING if minutes is None else f'{minutes:g}'} minutes in all"
    caption = (
        "The funnel: each rule, and how many architectures it left. "
        "Widths follow the logarithm of the count."
    )
    diagram = architecture_figure(design["chosen"], design["twin"])
    twin = (
        "One layer of each, and all parameters to scale. The twin is the dense model that "
        "takes the same memory in INT4: it reads everything for every token."
    )
    return (
        paragraph(f"The budget: {limits}.")
        + figure(_funnel(design["funnel"]), caption)
        + figure(diagram, twin)
        + _shape_table(design["chosen"], design["twin"])
        + "".join(paragraph(escape(note), "note") for note in design["notes"])
    )


def _funnel(steps: Sequence[FunnelStep]) -> str:
    if not steps:
        return not_measured("The steps of the design")
    most = max(1, *(step["left"] for step in steps))

    def width(left: int) -> float:
        return 0 if left <= 0 else 12 + 88 * math.log(left) / max(math.log(most), 1e-9)

    items = []
    for index, step in enumerate(steps):
        last = index == len(steps) - 1
        upper = width(step["left"])
        lower = upper if last else width(steps[index + 1]["left"])
        items.append(_funnel_step(step, upper, lower, last))
    return f'<ol class="funnel">{"".join(items)}</ol>'


def _funnel_step(step: FunnelStep, upper: float, lower: float, last: bool) -> str:
    points = f"{50 - upper / 2:.2f},0 {50 + upper / 2:.2f},0 "
    points += f"{50 + lower / 2:.2f},100 {50 - lower / 2:.2f},100"
    shape = (
        '<svg viewBox="0 0 100 100" preserveAspectRatio="none" aria-hidden="true">'
        f'<polygon points="{points}"/></svg>'
    )
    number = f'<div class="left"><span>{count(step["left"])}</span></div>'
    rule = f"<b>{escape(step['step'])}</b><span>{escape(step['rule'])}</span>"
    kind = ' class="last"' if last else ""
    return f'<li{kind}><div class="shape">{shape}{number}</div><div class="rule">{rule}</div></li>'


def _shape_table(chosen: Shape, twin: Shape) -> str:
    head = ["", f'<span class="moe">{escape(chosen["name"])}</span>']
    head.append(f'<span class="dense">{escape(twin["name"])}</span>')
    pairs = ((name, dict(chosen)[key], dict(twin)[key]) for name, key in _SHAPE_ROWS)
    rows = [[name, _whole(left), _whole(right)] for name, left, right in pairs]
    return table(head, rows, "The chosen architecture and its dense twin", "narrowtable")


def _whole(value: object) -> str:
    return count(value) if isinstance(value, int) else escape(value)


def training_section(report: Report) -> str:
    """Return the loss curve, the held-out loss around each stage, and one verdict for each."""
    stages = report.get("stages") or []
    if not stages:
        return _data_paragraph(report) + not_measured("Training")
    domains = _domains(stage["heldout_after"] for stage in stages)
    curve = (
        "Training loss [nats per token, logarithmic axis]: the pale line is every recorded step, "
        "the strong one its running mean. Each stage reads its own mixture, so levels compare "
        "within a stage, not across stages."
    )
    held = (
        "Held-out loss [nats per token] around each stage; all panels have the same scale but "
        "their own level. Blue: the stage is meant for this domain. A hollow dot marks a stage "
        "that starts from another value than the last one ended on."
    )
    drawn = figure(heldout_figure(stages, domains), held) if domains else ""
    verdicts = "".join(_stage_verdict(stage, domains) for stage in stages)
    return (
        _data_paragraph(report)
        + figure(loss_figure(stages), curve)
        + drawn
        + f'<h3>Did each stage do what it is for?</h3><ul class="verdicts">{verdicts}</ul>'
        + _stage_table(stages)
    )


def _domains(parts: Iterable[Iterable[str]]) -> list[str]:
    return list(dict.fromkeys(domain for part in parts for domain in part))


def _data_paragraph(report: Report) -> str:
    data = report.get("data")
    if not data:
        return paragraph(f"The corpus: {MISSING} in this run.")
    listed = []
    for name, domain in data["domains"].items():
        tokens = short_count(domain["train_tokens"])
        held = short_count(domain["heldout_tokens"])
        listed.append(f"{escape(name)} {tokens} training and {held} held-out tokens")
    text = f"The corpus, with a vocabulary of {count(data['vocab_size'])}: {'; '.join(listed)}."
    return paragraph(text)


def _stage_verdict(stage: Stage, domains: Sequence[str]) -> str:
    deltas = "".join(_delta(stage, domain) for domain in domains)
    return (
        f'<li><div class="head"><b>{escape(stage["name"])}</b>{_verdict(stage)}</div>'
        f"<div>{escape(stage['purpose'])}</div>"
        f'<div class="deltas">{deltas}</div></li>'
    )


def _verdict(stage: Stage) -> str:
    """Say whether the stage lowered the loss on what it is for, and where it did not."""
    if stage["lowered"] is None:
        return MISSING
    changes = {domain: _change(stage, domain) for domain in stage["for_domains"]}
    fell = [domain for domain, by in changes.items() if by is not None and by < 0]
    stayed = [domain for domain, by in changes.items() if by is not None and by >= 0]
    parts = [f"lowered on {escape(', '.join(fell))}"] if fell else []
    parts += [f"not lowered on {escape(', '.join(stayed))}"] if stayed else []
    words = "; ".join(parts) or f"for {escape(', '.join(stage['for_domains']))}"
    if stage["lowered"]:
        return f'<span class="good">✓ yes: {words}</span>'
    return f'<span class="bad">✗ no: {words}</span>'


def _change(stage: Stage, domain: str) -> float | None:
    before = finite(stage["heldout_before"].get(domain))
    after = finite(stage["heldout_after"].get(domain))
    return None if before is None or after is None else after - before


def _delta(stage: Stage, domain: str) -> str:
    before = finite(stage["heldout_before"].get(domain))
    after = finite(stage["heldout_after"].get(domain))
    name = escape(domain)
    if before is None or after is None:
        return f"<span>{name} {MISSING}</span>"
    return f"<span>{name} {before:.3f} → {after:.3f} ({change(after - before, 3)})</span>"


def _stage_table(stages: Sequence[Stage]) -> str:
    head = ["", *(escape(stage["name"]) for stage in stages)]
    rows = [
        ["Tokens", *(short_count(stage["tokens"]) for stage in stages)],
        ["Steps", *(count(stage["steps"]) for stage in stages)],
        ["Time", *(duration(stage["seconds"]) for stage in stages)],
        ["Tokens/s", *(count(stage["tok_s"]) for stage in stages)],
        ["Context", *(count(stage["context"]) for stage in stages)],
        ["Peak rate", *(_rate(stage["peak_lr"]) for stage in stages)],
        ["Dispatch", *(escape(stage["dispatch"]) for stage in stages)],
        ["Dropped", *(percent(stage["dropped_share"], 2) for stage in stages)],
    ]
    for domain in _domains(stage["mixture"] for stage in stages):
        shares = (stage["mixture"].get(domain, 0.0) for stage in stages)
        rows.append([f"Mix: {escape(domain)}", *(percent(share) for share in shares)])
    return table(head, rows, "Settings of each stage", "stages")


def _rate(rate: float | None) -> str:
    known = finite(rate)
    return MISSING if known is None else f"{known:.3g}".replace("-", MINUS)


def quantization_section(report: Report) -> str:
    """Return what INT4 costs after training, with QAT and against the control."""
    part = report.get("quantization")
    if not part:
        return not_measured("Quantisation")
    domains = _domains(row["perplexity"] for row in part["rows"])
    text = (
        "PTQ rounds the finished BF16 weights; QAT trains on with the rounding in the loop. "
        "The control trains on over the same tokens without it, so that QAT is not credited "
        f"with what more training brings. Measured on {count(part['heldout_tokens'])} held-out "
        "tokens."
    )
    caption = (
        "Perplexity against BF16: dots show the change, labels the perplexity itself (lower is "
        "better). Hollow: the control. A triangle: more than twice that of BF16."
    )
    drawn = figure(perplexity_figure(part["rows"], domains), caption) if domains else ""
    return (
        paragraph(text)
        + drawn
        + paragraph(escape(part["verdict"]), "verdict")
        + _row_notes(part)
        + _seeds(part["seeds"])
    )


def _row_notes(part: Quantization) -> str:
    notes = [(row["name"], row["note"]) for row in part["rows"] if row["note"]]
    cells = "".join(f"<dt>{escape(name)}</dt><dd>{escape(note)}</dd>" for name, note in notes)
    return f'<dl class="facts">{cells}</dl>' if cells else ""


def _seeds(seeds: Sequence[SeedRow]) -> str:
    if not seeds:
        return ""
    gains = [
        control - qat
        for row in seeds
        if (control := finite(row["control_ptq"])) is not None
        and (qat := finite(row["qat"])) is not None
    ]
    better = sum(gain > 0 for gain in gains)
    text = f"QAT is better than the control in INT4 for {better} of {len(gains)} seeds"
    if gains:
        mean = change(-sum(gains) / len(gains), 3)
        text += f" (change of perplexity, mean over the seeds: {mean})"
    return figure(seeds_figure(seeds), f"{text}.")


def experts_section(report: Report) -> str:
    """Return the heat map of expert use with its one-line reading."""
    part = report.get("experts")
    layers = part["share"] if part else []
    if not part or not finites(v for layer in layers for row in layer for v in row):
        return not_measured("The use of experts")
    items = "".join(
        f'<li><i style="background:var(--{name})"></i>{words}</li>'
        for _, name, words in HEAT_CLASSES
    )
    keys = f'<ul class="keys" aria-label="Use against uniform use">{items}</ul>'
    caption = (
        "How much of each domain's routing goes to each expert, against uniform use. "
        "Columns are sorted within a layer, so they do not line up across layers."
    )
    return paragraph(escape(part["reading"])) + figure(experts_figure(part) + keys, caption)
