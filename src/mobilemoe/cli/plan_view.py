"""A plan on the screen, and as the document of `--json`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mobilemoe.cli.info import Subject, describe_config, table
from mobilemoe.cli.output import print_table
from mobilemoe.cli.units import amount

if TYPE_CHECKING:
    from mobilemoe.plan import Plan
    from mobilemoe.plan.search import Candidate, Sensitivity

FRONT_ROWS = 12
Row = tuple[str, ...]


def document(result: Plan) -> dict[str, Any]:
    """Return the JSON document of a plan, with the sizes of the model and its dense twin."""
    from mobilemoe.plan.search.document import plan_document

    config = result.chosen.config
    twin = config.dense_twin() if config.is_moe else config
    return plan_document(result) | {
        "design": describe_config(config),
        "dense_twin": describe_config(twin),
    }


def print_plan(result: Plan) -> None:
    """Print the chosen model, the reasons, the front, what would change it, and the notes."""
    steps = [(step.step, step.rule, f"{step.left:,}") for step in result.funnel]
    print_table("From the constraints to one shape", ("step", "rule", "left"), steps)
    header, rows = table(Subject("the design", result.chosen.config))
    print_table("The design", header, rows)
    reasons = [(r.name, _value(r.value), r.why) for r in result.reasons]
    print_table("Why each number", ("number", "value", "why"), reasons)
    _print_front(result)
    _print_sensitivity(result)
    for sentence in (*result.confidence, *result.notes):
        print(f"- {sentence}")


def _value(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,}" if value < 1e9 else f"{value:.4g}"


def _print_front(result: Plan) -> None:
    """Print the chosen model and members of the front around it, best first."""
    from mobilemoe.plan.search import thinned

    front = [c for c in result.front if c.shape != result.chosen.shape]
    shown = thinned(front, FRONT_ROWS - 1)
    header = ["", "width x layers", "E", "loss", "memory", "active", "training FLOPs"]
    timed = result.chosen.decode_tok_s is not None
    header += ["tokens/s"] if timed else []
    rows = [_candidate("chosen", result.chosen, timed)]
    rows += [_candidate("tie" if c in result.ties else "", c, timed) for c in shown]
    more = f", {len(shown)} of {len(front)} shown" if len(front) > len(shown) else ""
    title = f"The front of loss, memory, speed and training cost: {len(result.front)} models{more}"
    print_table(title, tuple(header), rows)
    if any(c.loss is not None and c.loss.outside for c in (result.chosen, *shown)):
        print("* outside the law's fitted range: see what the notes below say of it\n")


def _candidate(mark: str, candidate: Candidate, timed: bool) -> Row:
    loss = candidate.loss
    row = (
        mark,
        f"{candidate.shape.hidden_size} x {candidate.shape.num_hidden_layers}",
        str(candidate.expert_equivalents) + _form(candidate),
        "-" if loss is None else f"{loss.loss:.4f}{'*' if loss.outside else ''}",
        amount(candidate.memory_bytes, "B"),
        amount(candidate.active_params, ""),
        f"{candidate.training_flops:.3g}",
    )
    return (*row, f"{candidate.decode_tok_s:,.1f}") if timed else row


def _form(candidate: Candidate) -> str:
    """Return how the experts differ from the published form."""
    shape = candidate.shape
    if shape.is_dense:
        return " (dense)"
    granularity = "" if shape.granularity == 8 else f", g {shape.granularity}"
    return granularity + ("" if shape.shared_expert else ", no shared")


def _print_sensitivity(result: Plan) -> None:
    """Print what the choice would be under each change that changes it."""
    if not result.sensitivity:
        return
    changing = [change for change in result.sensitivity if change.changes]
    rows = [_change(change) for change in changing]
    kept = len(result.sensitivity) - len(changing)
    title = f"What would change the choice ({kept} of {len(result.sensitivity)} changes do not)"
    print_table(title, ("change", "width x layers", "E", "loss", "memory"), rows)


def _change(change: Sensitivity) -> Row:
    chosen = change.chosen
    if chosen is None:
        return (change.change, "nothing is feasible", "", "", "")
    loss = "-" if change.loss is None else f"{change.loss:.4f}"
    shape = f"{chosen.shape.hidden_size} x {chosen.shape.num_hidden_layers}"
    experts = str(chosen.expert_equivalents) + _form(chosen)
    return (change.change, shape, experts, loss, amount(chosen.memory_bytes, "B"))
