"""Training on GPUs that are not here: memory, traffic, time and money, each with its source."""

from __future__ import annotations

from mobilemoe.plan.cluster.gpu import GpuProfile, gpu_profile, known_gpus
from mobilemoe.plan.cluster.layout import Layout, check_layout
from mobilemoe.plan.cluster.memory import Memory, States, counted_states, stage_memory
from mobilemoe.plan.cluster.plan import ClusterPlan, StagePlan, cluster_plan
from mobilemoe.plan.cluster.quantity import Quantity
from mobilemoe.plan.cluster.refusal import require_fit
from mobilemoe.plan.cluster.shards import padded_by_part, trained_by_part
from mobilemoe.plan.cluster.step_time import StepTime, step_time
from mobilemoe.plan.cluster.traffic import Flow, flows

__all__ = [
    "ClusterPlan",
    "Flow",
    "GpuProfile",
    "Layout",
    "Memory",
    "Quantity",
    "StagePlan",
    "States",
    "StepTime",
    "check_layout",
    "cluster_plan",
    "counted_states",
    "flows",
    "gpu_profile",
    "known_gpus",
    "padded_by_part",
    "require_fit",
    "stage_memory",
    "step_time",
    "trained_by_part",
]
