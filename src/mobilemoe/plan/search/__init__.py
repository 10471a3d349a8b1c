"""The planner: from constraints to the models that meet them, and the one to train."""

from __future__ import annotations

from mobilemoe.plan.search.candidate import Candidate, LossEstimate
from mobilemoe.plan.search.constraints import Constraints
from mobilemoe.plan.search.front import thinned
from mobilemoe.plan.search.infeasible import InfeasibleError, Nearest
from mobilemoe.plan.search.planner import plan
from mobilemoe.plan.search.result import FunnelStep, Plan, Reason, Sensitivity

__all__ = [
    "Candidate",
    "Constraints",
    "FunnelStep",
    "InfeasibleError",
    "LossEstimate",
    "Nearest",
    "Plan",
    "Reason",
    "Sensitivity",
    "plan",
    "thinned",
]
