"""From a budget to an architecture, and the scaling law behind the choice."""

from __future__ import annotations

from mobilemoe.plan.budget import Budget
from mobilemoe.plan.design import Design, FunnelStep, design
from mobilemoe.plan.law import MoELaw, effective_experts, published_law

__all__ = [
    "Budget",
    "Design",
    "FunnelStep",
    "MoELaw",
    "design",
    "effective_experts",
    "published_law",
]
