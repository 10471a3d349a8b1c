"""One loop for the four stages of a recipe: pre-training, mid-training, SFT and INT4 QAT."""

from mobilemoe.train.events import (
    Alarm,
    ExpertLoads,
    RolledBack,
    StepMetrics,
    StepSkipped,
    TrainEvent,
)
from mobilemoe.train.loop import Trainer, load_weights
from mobilemoe.train.settings import Settings
from mobilemoe.train.state import state_sha256

__all__ = [
    "Alarm",
    "ExpertLoads",
    "RolledBack",
    "Settings",
    "StepMetrics",
    "StepSkipped",
    "TrainEvent",
    "Trainer",
    "load_weights",
    "state_sha256",
]
