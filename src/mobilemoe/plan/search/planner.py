"""The planner: constraints in, the model to train and the account of the choice out."""

from __future__ import annotations

from mobilemoe.plan.law import MoELaw, published_law
from mobilemoe.plan.search.candidates import Speeds
from mobilemoe.plan.search.choice import ties
from mobilemoe.plan.search.confidence import confidence
from mobilemoe.plan.search.constraints import Constraints
from mobilemoe.plan.search.front import pareto_front
from mobilemoe.plan.search.notes import notes
from mobilemoe.plan.search.reasons import reasons
from mobilemoe.plan.search.result import Plan
from mobilemoe.plan.search.search import search
from mobilemoe.plan.search.sensitivity import sensitivity


def plan(
    constraints: Constraints, law: MoELaw | None = None, *, with_sensitivity: bool = True
) -> Plan:
    """Return what to train for `constraints`; deterministic, no training, no measurement.

    `law` is by default the published one; `with_sensitivity` false leaves out the searches that
    say what would change the choice.

    Raises:
        InfeasibleError: if nothing meets the constraints; it names the binding one and the
            nearest values that would do.
        MobileMoEError: if the device profile does not know the threads or the format of the
            cache, or the vocabulary has no room for the special tokens.
    """
    law = published_law() if law is None else law
    speeds = Speeds()
    found = search(law, constraints, speeds)
    front = pareto_front(law, found.compared)
    return Plan(
        constraints=constraints,
        chosen=found.chosen,
        front=front,
        ties=ties(law, front) if found.chosen.loss is not None else (),
        funnel=found.funnel,
        reasons=reasons(law, constraints, found.chosen),
        confidence=confidence(law, constraints, found, front),
        sensitivity=sensitivity(law, constraints, found.chosen, speeds) if with_sensitivity else (),
        notes=notes(law, constraints, found, speeds),
    )
