"""What would change the choice: the same search with one constraint or one coefficient moved."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import sqrt
from statistics import fmean

from mobilemoe.errors import MobileMoEError
from mobilemoe.plan.law import MoELaw
from mobilemoe.plan.search.candidate import Candidate
from mobilemoe.plan.search.candidates import Speeds
from mobilemoe.plan.search.constraints import Constraints
from mobilemoe.plan.search.infeasible import InfeasibleError
from mobilemoe.plan.search.result import Sensitivity
from mobilemoe.plan.search.search import search

COEFFICIENTS = ("a", "delta", "alpha", "gamma", "b", "omega", "beta", "zeta", "c")
PROBE = 1e-4  # relative step of the slope of the law in a coefficient


def sensitivity(
    law: MoELaw, constraints: Constraints, chosen: Candidate, speeds: Speeds
) -> tuple[Sensitivity, ...]:
    """Return what is chosen under each change, the law's coefficients last."""
    changed = [(text, law, other) for text, other in _constraint_changes(constraints)]
    changed += [(text, other, constraints) for text, other in _law_changes(law)]
    return tuple(_tried(text, other, asked, chosen, speeds) for text, other, asked in changed)


def _tried(
    text: str, law: MoELaw, constraints: Constraints, before: Candidate, speeds: Speeds
) -> Sensitivity:
    try:
        chosen = search(law, constraints, speeds).chosen
    except InfeasibleError:
        return Sensitivity(text, None, None, changes=True)
    loss = chosen.loss.loss if chosen.loss else None
    return Sensitivity(text, chosen, loss, changes=chosen.shape != before.shape)


def _constraint_changes(constraints: Constraints) -> Iterator[tuple[str, Constraints]]:
    """Yield every constraint that was given, halved and doubled, and a wider cache."""
    for field, label in (
        ("memory_bytes", "memory"),
        ("context", "context"),
        ("flops_per_token", "FLOPs per token"),
        ("decode_tok_s", "decode speed"),
        ("ttft_s", "time to first token"),
        ("train_flops", "training FLOPs"),
        ("tokens", "training tokens"),
    ):
        value = getattr(constraints, field)
        if value is None:
            continue
        for word, factor in (("half the", 0.5), ("twice the", 2)):
            moved = _moved(constraints, field, type(value)(value * factor))
            if moved is not None:
                yield f"{word} {label}", moved
    if constraints.kv_format == "int8" and constraints.device is None:
        yield "an fp16 KV cache", replace(constraints, kv_format="fp16")


def _moved(constraints: Constraints, field: str, value: float) -> Constraints | None:
    """Return `constraints` with another value, None where nobody could ask for that."""
    try:
        return replace(constraints, **{field: value})  # type: ignore[arg-type]  # of its type
    except MobileMoEError:
        return None


def _law_changes(law: MoELaw) -> Iterator[tuple[str, MoELaw]]:
    """Yield the law with each coefficient moved, down and up, as far as the fit's error allows.

    Moved alone, so far that the predictions over the law's own sweep change by its error (root
    mean square); the publication gives no intervals of its coefficients.
    """
    for name in COEFFICIENTS:
        value = getattr(law, name)
        slope = _slope(law, name)
        if slope == 0:
            continue
        for word, sign in (("down", -1), ("up", 1)):
            moved = value + sign * law.rmse / slope
            yield f"{name} {word} to {moved:.4g}", replace(law, **{name: moved})


def _slope(law: MoELaw, name: str) -> float:
    """Return the root mean square of the loss's derivative in a coefficient, over the sweep."""
    value = getattr(law, name)
    step = PROBE * (abs(value) or 1.0)
    moved = replace(law, **{name: value + step})
    pairs = zip(_sweep(law), _sweep(moved), strict=True)
    return sqrt(fmean(((after - before) / step) ** 2 for before, after in pairs))


def _sweep(law: MoELaw) -> Iterator[float]:
    for active in law.active_grid:
        for tokens in law.token_grid:
            for experts in law.expert_grid:
                yield law.loss(active_params=active, tokens=tokens, num_experts=experts)
