"""What a design rests on, in sentences: the law's reach, its error, and what is left unused."""

from __future__ import annotations

from mobilemoe.config import ModelConfig
from mobilemoe.plan.budget import Budget
from mobilemoe.plan.family import EXPERT_EQUIVALENTS, WIDTHS, Shape
from mobilemoe.plan.law import MoELaw


def design_notes(law: MoELaw, budget: Budget, shape: Shape, config: ModelConfig) -> tuple[str, ...]:
    """Return the notes on `config`, which was chosen as `shape` for `budget`."""
    notes = [_reach(law, shape, config), _near_ties(law)]
    best = law.best_num_experts(EXPERT_EQUIVALENTS)
    if shape.expert_equivalents != best:
        notes.append(f"The law's best E is {best}, but no shape with it is within this budget.")
    notes += [_use(budget, config), _next_width(budget, shape)]
    return tuple(notes)


def _reach(law: MoELaw, shape: Shape, config: ModelConfig) -> str:
    """Say whether the law knows anything about a model of this size."""
    low, high = law.active_grid[0], law.active_grid[-1]
    few, many = law.token_grid[0], law.token_grid[-1]
    sweep = (
        f"The scaling law was fitted on {low / 1e9:g} to {high / 1e9:g} billion active "
        f"parameters and {few / 1e9:g} to {many / 1e9:g} billion tokens"
    )
    if not low <= config.active_params <= high:
        return (
            f"{sweep}; this design has {config.active_params / 1e6:,.1f} million, which is out "
            "of range, so no loss is predicted. Only E is taken from the law, as the lowest "
            "mean loss over its own sweep: a transfer to this size that nobody has shown."
        )
    worst, best = (
        law.loss(
            active_params=config.active_params,
            tokens=tokens,
            num_experts=shape.expert_equivalents,
        )
        for tokens in (few, many)
    )
    return (
        f"{sweep}; this design is within it: predicted loss {worst:.3f} at the fewest tokens, "
        f"{best:.3f} at the most, give or take {law.rmse:g}."
    )


def _near_ties(law: MoELaw) -> str:
    """Name the expert counts that the law cannot tell apart."""
    means = {experts: law.mean_loss(experts) for experts in law.expert_grid}
    lowest = min(means.values())
    ties = [str(experts) for experts, mean in means.items() if mean - lowest < law.rmse]
    return (
        f"Over that sweep E = {', '.join(ties)} differ by less than the law's own error "
        f"({law.rmse:g}): the choice among them is a convention, not a finding."
    )


def _use(budget: Budget, config: ModelConfig) -> str:
    weights, kv = config.weight_bytes("int4") / 1e6, budget.kv_bytes(config) / 1e6
    return (
        f"Memory: {weights:,.2f} MB of weights and {kv:,.2f} MB of KV cache, together "
        f"{weights + kv:,.2f} of {budget.memory_bytes / 1e6:,.2f} MB; compute: "
        f"{config.flops_per_token / 1e6:,.2f} of {budget.flops_per_token / 1e6:,.2f} "
        "MFLOP per token."
    )


def _next_width(budget: Budget, shape: Shape) -> str:
    """Say what the next larger shape with this E would take."""
    wider = shape.wider()
    if wider is None:
        return f"This is the largest shape of the family, which ends at width {WIDTHS[-1]}."
    config = wider.config(budget.vocab_size, budget.context)
    return (
        f"The next width, {wider.hidden_size}, would take "
        f"{budget.memory_of(config) / 1e6:,.2f} MB and "
        f"{config.flops_per_token / 1e6:,.2f} MFLOP per token."
    )
