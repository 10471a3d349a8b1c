"""From constraints to an architecture, and the scaling law behind the choice."""

from __future__ import annotations

from mobilemoe.plan.budget import Budget
from mobilemoe.plan.design import Design, design
from mobilemoe.plan.law import MoELaw, effective_experts, published_law
from mobilemoe.plan.search import Constraints, FunnelStep, Plan, plan

__all__ = [
    "Budget",
    "Constraints",
    "Design",
    "FunnelStep",
    "MoELaw",
    "Plan",
    "design",
    "effective_experts",
    "plan",
    "published_law",
]
