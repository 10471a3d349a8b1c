"""Pictures of a plan and of a sweep: data apart from drawing, files, and one HTML page.

Nothing here loads matplotlib before a figure is asked for. Figures of a plan are in
`draw_front`, `draw_regions`, `draw_memory`, `draw_cost`, `draw_latency` and `draw_law`, those of
a sweep in `draw_sweep` and `draw_gains`; each takes plain data and returns a `Drawing`.
"""

from __future__ import annotations

from mobilemoe.plan.pictures.cost import Costs, Trainee, training_costs
from mobilemoe.plan.pictures.data import PlanData, plan_data
from mobilemoe.plan.pictures.drawing import Drawing
from mobilemoe.plan.pictures.latency import Latencies, latencies
from mobilemoe.plan.pictures.law_curves import LawCurves, law_curves
from mobilemoe.plan.pictures.memory import MemoryParts, memory_parts
from mobilemoe.plan.pictures.page import (
    plan_drawings,
    plan_page,
    save_drawings,
    save_pictures,
)
from mobilemoe.plan.pictures.regions import Regions, regions
from mobilemoe.plan.pictures.sizes import Sizes, family_sizes
from mobilemoe.plan.pictures.sweep import Panel, Point, Series, crossovers

__all__ = [
    "Costs",
    "Drawing",
    "Latencies",
    "LawCurves",
    "MemoryParts",
    "Panel",
    "PlanData",
    "Point",
    "Regions",
    "Series",
    "Sizes",
    "Trainee",
    "crossovers",
    "family_sizes",
    "latencies",
    "law_curves",
    "memory_parts",
    "plan_data",
    "plan_drawings",
    "plan_page",
    "regions",
    "save_drawings",
    "save_pictures",
    "training_costs",
]
