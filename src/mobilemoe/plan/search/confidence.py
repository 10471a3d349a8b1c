"""How sure a choice is, in sentences: the law's reach, its error, and what it cannot tell apart."""

from __future__ import annotations

from collections.abc import Sequence

from mobilemoe.plan.family import GRANULARITY
from mobilemoe.plan.law import MoELaw, published_law
from mobilemoe.plan.search.candidate import Candidate, LossEstimate
from mobilemoe.plan.search.constraints import Constraints
from mobilemoe.plan.search.front import costs, covers
from mobilemoe.plan.search.notes import tokens_in_words
from mobilemoe.plan.search.reach import training_tokens, unreachable
from mobilemoe.plan.search.search import Found


def confidence(
    law: MoELaw, constraints: Constraints, found: Found, front: Sequence[Candidate]
) -> tuple[str, ...]:
    """Return what the choice rests on, the law's reach first."""
    chosen = found.chosen
    sentences = [_sweep_of(law) + _reach(law, constraints, chosen), _sweep_ties(law)]
    if chosen.loss is not None:
        sentences.append(_ties_here(law, chosen, chosen.loss))
        sentences += _edges(law, chosen, chosen.loss)
        sentences += _beside_the_front(law, chosen, front)
    best = law.best_num_experts()
    if chosen.expert_equivalents != best and constraints.prefer == "loss":
        sentences.append(_not_the_best(best, chosen, found.compared))
    if not chosen.shape.is_dense:
        sentences += _form(chosen)
    if found.unreached:
        sentences.append(
            f"{found.unreached:,} feasible models are so far outside the law's range that they "
            "were not compared; extrapolating would rank them by numbers nobody has tested."
        )
    return tuple(sentences)


def _sweep_of(law: MoELaw) -> str:
    low, high = law.active_grid[0], law.active_grid[-1]
    few, many = law.token_grid[0], law.token_grid[-1]
    return (
        f"The scaling law was fitted on {low / 1e9:g} to {high / 1e9:g} billion active "
        f"parameters and {few / 1e9:g} to {many / 1e9:g} billion tokens"
    )


def _reach(law: MoELaw, constraints: Constraints, chosen: Candidate) -> str:
    """Say whether the law knows anything about the chosen model, and what."""
    if chosen.loss is None:
        return f"; {_why_silent(law, constraints, chosen)}, so no loss is predicted. " + (
            "Only E is taken from the law, as the lowest mean loss over its own sweep: a transfer "
            "that nobody has shown."
        )
    loss = chosen.loss
    if loss.extrapolated:
        return (
            f"; this design is outside in {', '.join(loss.outside)}, and {loss.loss:.3f} is an "
            "extrapolation, made because it was asked for: the fit says nothing there."
        )
    where = "within it" if not loss.outside else "compared at its edge"
    return (
        f"; this design is {where}: predicted loss {loss.loss:.3f} at "
        f"{loss.active_params / 1e9:.3g} billion active parameters and {loss.tokens / 1e9:,.4g} "
        f"billion tokens, give or take {law.rmse:.2g}."
    )


def _why_silent(law: MoELaw, constraints: Constraints, chosen: Candidate) -> str:
    active, experts = chosen.active_params, chosen.expert_equivalents
    tokens = training_tokens(law, constraints, active)
    words = {
        "active_params": f"this design has {active / 1e6:,.1f} million, which is out of range",
        "tokens": f"{_budget(constraints)} gives it {tokens_in_words(tokens)} tokens: too few",
        "num_experts": f"its E is {experts}, beyond the law's {law.expert_grid[-1]}",
    }
    return "; ".join(words[name] for name in unreachable(law, active, tokens, experts))


def _budget(constraints: Constraints) -> str:
    return "the number of tokens" if constraints.tokens else "the training budget"


def _sweep_ties(law: MoELaw) -> str:
    """Name the expert counts that the law cannot tell apart over its sweep."""
    means = {experts: law.mean_loss(experts) for experts in law.expert_grid}
    lowest = min(means.values())
    equal = [str(experts) for experts, mean in means.items() if law.is_tie(mean, lowest)]
    if len(equal) == 1:
        error = f"{law.rmse:.2g}"
        return f"Over that sweep E = {equal[0]} is lowest by more than the law's error, {error}."
    return (
        f"Over that sweep E = {', '.join(equal)} differ by less than the law's own error "
        f"({law.rmse:.2g}): the choice among them is a convention, not a finding."
    )


def _ties_here(law: MoELaw, chosen: Candidate, at: LossEstimate) -> str:
    """Give the loss of every E at the point where the chosen model was compared."""
    losses = {
        experts: law.predict(
            active_params=at.active_params, tokens=at.tokens, num_experts=experts
        ).loss
        for experts in law.expert_grid
    }
    lowest = min(losses.values())
    listed = ", ".join(f"{experts}: {loss:.3f}" for experts, loss in losses.items())
    equal = [str(experts) for experts, loss in losses.items() if law.is_tie(loss, lowest)]
    return (
        f"At equal active parameters and tokens the law gives, by E, {listed}; within its error "
        f"of the lowest: E = {', '.join(equal)}."
    )


def _edges(law: MoELaw, chosen: Candidate, loss: LossEstimate) -> list[str]:
    """Say what it means that the law was asked beside the model."""
    if loss.extrapolated:
        return []
    sentences = []
    if "tokens" in loss.outside:
        sentences.append(
            f"{chosen.tokens / 1e9:,.4g} billion tokens are beyond the fit, so models are compared "
            f"at {loss.tokens / 1e9:g} billion: the loss reached should be lower.{_drift(law)}"
        )
    if "active_params" in loss.outside:
        sentences.append(
            f"{chosen.active_params / 1e9:.3g} billion active parameters count as "
            f"{loss.active_params / 1e9:g}, the nearest size that was fitted; the fitted sizes "
            "are themselves rounded."
        )
    return sentences


def _drift(law: MoELaw) -> str:
    """Say why the published fit is not followed beyond its tokens."""
    if law != published_law():
        return ""
    return (
        " Beyond its range the fit prefers ever fewer experts, E = 2 at 6 trillion tokens, which "
        "the models trained so, with E = 8, contradict (arXiv 2605.27358)."
    )


def _beside_the_front(law: MoELaw, chosen: Candidate, front: Sequence[Candidate]) -> list[str]:
    """Admit that the law's point estimates prefer another model, if they do."""
    mine = costs(law, chosen)
    better = [other for other in front if covers(costs(law, other), mine) and other != chosen]
    if not better:
        return []
    other = min(better, key=lambda c: abs(c.active_params - chosen.active_params))
    return [
        f"The chosen model is beside the front: by the law's numbers E = "
        f"{other.expert_equivalents} ({other.shape.hidden_size} x "
        f"{other.shape.num_hidden_layers}) is no worse in loss and in every cost. The difference "
        "in loss is within the law's error, so the convention for E decides."
    ]


def _not_the_best(best: int, chosen: Candidate, compared: Sequence[Candidate]) -> str:
    """Explain an E that is not the convention's."""
    if all(other.expert_equivalents != best for other in compared):
        return (
            f"The law's best E is {best}, but no shape with it that can be compared is within "
            "these constraints."
        )
    if chosen.loss is None:
        return f"The law's best E is {best}; the rules above left none with it."
    return (
        f"The law's best E over its sweep is {best}; within these constraints E = "
        f"{chosen.expert_equivalents} reaches a loss that is lower by more than the law's error."
    )


def _form(chosen: Candidate) -> list[str]:
    """Say what is known of granularity and the shared expert, which have no number in the law."""
    shape = chosen.shape
    sentences = []
    if shape.granularity != GRANULARITY:
        sentences.append(
            f"The law was fitted at granularity 8, this design has {shape.granularity}: its loss "
            "is taken to be the same. Published: 16 gains less than .01 over 8 and takes about "
            "half as much time again (arXiv 2605.27358)."
        )
    if not shape.shared_expert:
        sentences.append(
            "The law was fitted with a shared expert, this design has none: its loss will be "
            "higher than the number says, by how much is not published (arXiv 2605.27358)."
        )
    return sentences
