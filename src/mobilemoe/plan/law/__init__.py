"""The on-device MoE scaling law, its reduced forms, and the published coefficients.

    L(N, D, E) = A Ê^delta N^(alpha + gamma ln Ê) + B Ê^omega D^(beta + zeta ln Ê) + c

N are active parameters, D training tokens, Ê a saturating transform of the number of expert
equivalents E. Source: "MobileMoE: Scaling On-Device Mixture of Experts" (arXiv 2605.27358),
where the coefficients belong to an architecture (granularity, shared expert): `LawTable`.
For one architecture it is the joint MoE law of arXiv 2502.05172, `MoELaw`; for one E it is
Chinchilla's (arXiv 2203.15556), `DenseLaw`. The transform is from arXiv 2202.01169.
"""

from __future__ import annotations

from mobilemoe.plan.law.dense import DenseLaw
from mobilemoe.plan.law.experts import effective_experts
from mobilemoe.plan.law.files import load_law, save_law
from mobilemoe.plan.law.moe import MoELaw
from mobilemoe.plan.law.published import SharedExpertEffect, published_law, published_shared_expert
from mobilemoe.plan.law.reach import Prediction
from mobilemoe.plan.law.table import Architecture, LawTable

__all__ = [
    "Architecture",
    "DenseLaw",
    "LawTable",
    "MoELaw",
    "Prediction",
    "SharedExpertEffect",
    "effective_experts",
    "load_law",
    "published_law",
    "published_shared_expert",
    "save_law",
]
