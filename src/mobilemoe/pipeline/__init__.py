"""A recipe carried out in a run folder: data, four stages, checkpoints; exact to resume."""

from __future__ import annotations

from mobilemoe.pipeline.events import (
    DataReady,
    Finished,
    Prepared,
    RunEvent,
    Saved,
    StageStarted,
    Stopped,
    Warned,
)
from mobilemoe.pipeline.folder import RunFolder, claim
from mobilemoe.pipeline.run import RunResult, run_stages
from mobilemoe.pipeline.stage import Course, StageResult
from mobilemoe.pipeline.start import carry_out

__all__ = [
    "Course",
    "DataReady",
    "Finished",
    "Prepared",
    "RunEvent",
    "RunFolder",
    "RunResult",
    "Saved",
    "StageResult",
    "StageStarted",
    "Stopped",
    "Warned",
    "carry_out",
    "claim",
    "run_stages",
]
