"""The sections of the training report as HTML."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import datetime

from mobilemoe.page.canvas import responsive
from mobilemoe.page.markup import (
    MISSING,
    TIMES,
    change,
    count,
    duration,
    escape,
    figure,
    paragraph,
    percent,
    short_count,
    significant,
    table,
)
from mobilemoe.train.report.axis import ends
from mobilemoe.train.report.curves import Drawing
from mobilemoe.train.report.heat import LayerLoad, heat_maps
from mobilemoe.train.report.record import RunRecord, StageRecord

ROWS = 200  # of troubles listed; the journal has them all
TRAINED, HELD_OUT = '<b class="moe">Blue</b>', '<b class="dense">Orange</b>'
CAPTIONS = {
    "loss": "Training loss [nats per token, logarithmic axis]: pale as measured, strong its "
    "running mean. Each stage reads its own mixture, so levels compare within a stage.",
    "domains": f"{TRAINED}: training loss of each domain. {HELD_OUT}: held-out loss before and "
    "after each stage, with its last value. Nats per token, logarithmic axes.",
    "gradient": 'Norm of the gradient before clipping. <span class="bad">▾</span> a step that '
    'was skipped, <span class="bad">◂</span> a return to an earlier state; the red band was '
    "trained again.",
    "signs": "How fast it ran, and how the routers did. Choices dropped: (token, expert) pairs "
    "without a slot. Fullest expert: its load as a multiple of its layer's mean. Router entropy: "
    "1 means that all experts score alike.",
}


def headline(run: RunRecord) -> str:
    """Return the title, the run in one sentence, and the key numbers."""
    about = [run.machine, _when(run.started), f"recipe {run.recipe_id}" if run.recipe_id else ""]
    facts = " · ".join(["mobilemoe train", *(escape(part) for part in about if part)])
    first, last = ends(run.stages[0])[0], ends(run.stages[-1])[1]
    stages = _number_of(len(run.stages), "stage")
    names = ", ".join(escape(stage.name) for stage in run.stages)
    text = f"{short_count(run.tokens)} tokens in {stages} ({names}) and {duration(run.seconds)} "
    text += f"of training took the loss from {first:.2f} to {last:.2f} nats per token."
    return (
        f'<p class="eyebrow">{facts}</p><h1>{escape(run.name)}</h1>'
        + paragraph(text, "lede")
        + _tiles(run)
    )


def _when(started: str) -> str:
    try:
        return datetime.fromisoformat(started).strftime("%Y-%m-%d %H:%M %Z").rstrip()
    except ValueError:
        return started


def _tiles(run: RunRecord) -> str:
    skipped = sum(len(stage.skipped) for stage in run.stages)
    rolled = sum(len(stage.rollbacks) for stage in run.stages)
    alarms = sum(len(stage.alarms) for stage in run.stages)
    last = run.stages[-1]
    worst = f"{last.steps[-1].worst_load:.2f}{TIMES}"
    tiles = (
        ("Tokens", short_count(run.tokens), _number_of(sum(map(_steps, run.stages)), "step")),
        ("Speed", count(_speed(run.stages)), "tokens/s while training"),
        ("Loss", f"{ends(last)[1]:.3f}", f"training, end of {escape(last.name)}"),
        ("Fullest expert", worst, "of its layer's mean"),
        (
            "Steps skipped",
            count(skipped),
            f"{_number_of(rolled, 'rollback')}, {_number_of(alarms, 'alarm')}",
        ),
    )
    cells = "".join(
        f'<div><dt>{name}</dt><dd class="v">{value}</dd><dd class="w">{note}</dd></div>'
        for name, value, note in tiles
    )
    return f'<dl class="tiles">{cells}</dl>'


def _number_of(number: int, word: str) -> str:
    return f"{count(number)} {word}" + ("" if number == 1 else "s")


def _steps(stage: StageRecord) -> int:
    return stage.steps[-1].step


def _speed(stages: Iterable[StageRecord]) -> float:
    """Return tokens per second over all steps, also those undone."""
    known = list(stages)
    seconds = sum(stage.seconds for stage in known)
    return sum(stage.tokens for stage in known) / seconds if seconds else math.nan


def curve(drawing: Drawing) -> str:
    """Return a figure with its caption."""
    return figure(responsive(drawing.name, drawing.words, drawing.draw), CAPTIONS[drawing.name])


def stages_section(run: RunRecord) -> str:
    """Return the table of the stages, one a column."""
    stages = run.stages
    rows = [
        ["Tokens", *(short_count(stage.tokens) for stage in stages)],
        ["Steps", *(count(_steps(stage)) for stage in stages)],
        ["Time", *(duration(stage.seconds) for stage in stages)],
        ["Tokens/s", *(count(_speed([stage])) for stage in stages)],
        ["MFU", *(percent(_mfu(stage), 1) for stage in stages)],
        ["Training loss", *("{:.3f} → {:.3f}".format(*ends(stage)) for stage in stages)],
        ["Choices dropped", *(percent(_dropped(stage), 2) for stage in stages)],
        ["Skipped, rollbacks", *(f"{len(s.skipped)}, {len(s.rollbacks)}" for s in stages)],
    ]
    names = {name: None for s in stages for part in (s.before, s.after) for name in part}
    for name in names:
        rows.append([f"Held-out {escape(name)}", *(_heldout(stage, name) for stage in stages)])
    head = ["", *(escape(stage.name) for stage in stages)]
    note = "Held-out losses were not measured yet." if not names else ""
    return table(head, rows, "The stages", "stages") + (paragraph(note, "note") if note else "")


def _mfu(stage: StageRecord) -> float | None:
    values = [step.mfu for step in stage.steps if step.mfu is not None]
    return sum(values) / len(values) if values else None


def _dropped(stage: StageRecord) -> float:
    return sum(step.dropped_share for step in stage.steps) / len(stage.steps)


def _heldout(stage: StageRecord, domain: str) -> str:
    before, after = stage.before.get(domain), stage.after.get(domain)
    if before is None or after is None:
        known = after if before is None else before
        return MISSING if known is None else f"{known:.3f} {'before' if after is None else 'after'}"
    kind = "good" if after < before else "bad"
    difference = f'<span class="{kind} nb">{change(after - before, 3)}</span>'
    return f"{before:.3f} → {after:.3f}<br>{difference}"


def heat_section(run: RunRecord, layers: Sequence[LayerLoad]) -> str:
    """Return the maps of expert load with their one-line reading."""
    if not layers:
        return paragraph("The loads of experts were not counted in this run.", "absent")
    worst = max(layers, key=lambda layer: layer.worst[1])
    expert, last, _ = worst.worst
    first = max(layer.worst[2] for layer in layers)
    text = f"The fullest expert of any layer had {first:.2f}{TIMES} its layer's mean load in the "
    text += f"first count and has {last:.2f}{TIMES} in the last (layer {worst.number}, expert "
    text += f"{expert})."
    caption = "Experts from top to bottom, tokens from left to right; a gap parts the stages."
    return paragraph(text) + figure(heat_maps(run, list(layers)), caption)


def trouble_section(run: RunRecord) -> str:
    """Return alarms, skipped steps and rollbacks, each with its place and reason."""
    rows = [row for stage in run.stages for row in _troubles(stage)]
    if not rows:
        return paragraph("No alarm, no skipped step, no rollback.")
    more = f" The first {ROWS} of {len(rows)}; the journal has all." if len(rows) > ROWS else ""
    text = paragraph(f"Skipped steps left the weights as they were.{more}")
    cells = [cells for _, cells in rows[:ROWS]]
    return text + table(["Stage", "Step", "What", "Why"], cells, "Troubles", "troubles")


def _troubles(stage: StageRecord) -> list[tuple[int, list[str]]]:
    name = escape(stage.name)
    found = []
    for alarm in stage.alarms:
        text = [name, count(alarm.step), f"alarm: {escape(alarm.kind)}", escape(alarm.message)]
        found.append((alarm.step, text))
    for skip in stage.skipped:
        where = ", ".join(str(row) for row in skip.rows[:8]) + (" …" if len(skip.rows) > 8 else "")
        domains = ", ".join(dict.fromkeys(skip.domains))
        why = f"{skip.reason} (loss {_number(skip.loss)}, gradient {_number(skip.grad_norm)}"
        why += f"; rows {where}" if where else ""
        why += f"; {domains})" if domains else ")"
        found.append((skip.step, [name, count(skip.step), "skipped", escape(why)]))
    for back in stage.rollbacks:
        what = f"back to {count(back.to_step)}"
        found.append((back.from_step, [name, count(back.from_step), what, escape(back.reason)]))
    return sorted(found, key=lambda pair: pair[0])


def _number(value: float) -> str:
    return significant(value) if math.isfinite(value) else str(value)


def recipe_section(run: RunRecord) -> str:
    """Return the resolved recipe, folded."""
    if not run.recipe:
        return paragraph("The run folder holds no recipe.toml.", "absent")
    lines = f"{len(run.recipe.splitlines())} lines"
    return (
        f"<details><summary>recipe.toml, {lines}</summary>"
        f'<pre class="command">{escape(run.recipe)}</pre></details>'
    )
