"""Everything that a plan's figures show, computed once; no drawing here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mobilemoe.plan.cluster import gpu_profile
from mobilemoe.plan.family import EXPERT_EQUIVALENTS
from mobilemoe.plan.law import MoELaw, published_law
from mobilemoe.plan.pictures.cost import Costs, Trainee, training_costs
from mobilemoe.plan.pictures.front import FrontPoint, candidate_name, front_points
from mobilemoe.plan.pictures.latency import Latencies, latencies, usual_requests
from mobilemoe.plan.pictures.law_curves import LawCurves, law_curves
from mobilemoe.plan.pictures.memory import MemoryParts, even_contexts, memory_parts
from mobilemoe.plan.pictures.regions import Regions, regions
from mobilemoe.plan.pictures.sizes import family_sizes
from mobilemoe.plan.search import Candidate, Plan

GPU, GPUS = "h100", 64
MEMORY_SPAN, FLOPS_SPAN = (1 / 24, 3.0), (1 / 100, 10.0)  # of the map, around the budget
MEMORY_STEPS, FLOPS_STEPS = 97, 73
TOKEN_STEPS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the chosen model's training tokens
PRICED = 5


@dataclass(frozen=True)
class PlanData:
    """A plan with the data of its figures; `latencies` is None without a device.

    `budget` is what the plan may take: memory [bytes], training [FLOPs].
    """

    plan: Plan
    law: MoELaw
    budget: tuple[float, float]
    points: tuple[FrontPoint, ...]
    regions: Regions
    memory: MemoryParts
    costs: Costs
    curves: LawCurves
    latencies: Latencies | None


def plan_data(
    plan: Plan, law: MoELaw | None = None, *, gpu: str = GPU, gpus: int = GPUS
) -> PlanData:
    """Return the data of all figures of `plan`; `law` is the published one unless given.

    Raises:
        MobileMoEError: if the GPU is unknown, or the GPUs make no layout.
    """
    law = law or published_law()
    asked, chosen = plan.constraints, plan.chosen
    budget = (float(asked.memory_bytes), asked.train_flops or chosen.training_flops)
    memories, flops = (
        np.geomspace(value * low, value * high, steps).tolist()
        for value, (low, high), steps in zip(
            budget, (MEMORY_SPAN, FLOPS_SPAN), (MEMORY_STEPS, FLOPS_STEPS), strict=True
        )
    )
    sizes = family_sizes(
        EXPERT_EQUIVALENTS,
        vocab_size=asked.vocab_size,
        context=asked.context,
        kv_format=asked.kv_format,
    )
    tokens = [chosen.tokens * step for step in TOKEN_STEPS]
    asked_law = law if chosen.loss is not None else None  # a law that does not reach is not asked
    return PlanData(
        plan=plan,
        law=law,
        budget=budget,
        points=front_points(plan),
        regions=regions(law, sizes, memories, flops),
        memory=memory_parts(chosen.config, even_contexts(asked.context), asked.kv_format),
        costs=training_costs(asked_law, _trainees(plan), tokens, gpu_profile(gpu), gpus),
        curves=law_curves(law),
        latencies=_latencies(plan),
    )


def _trainees(plan: Plan) -> list[Trainee]:
    """Return the chosen model, and of every other E on the front the one of lowest loss."""
    picked: dict[int, Candidate] = {plan.chosen.expert_equivalents: plan.chosen}
    for each in plan.front:
        picked.setdefault(each.expert_equivalents, each)
    return [
        Trainee(candidate_name(each), each.config, each.expert_equivalents)
        for each in list(picked.values())[:PRICED]
    ]


def _latencies(plan: Plan) -> Latencies | None:
    asked = plan.constraints
    if asked.device is None:
        return None
    return latencies(
        asked.device,
        plan.chosen.config,
        usual_requests(asked.context),
        threads=asked.threads,
        kv_format=asked.kv_format,
    )
