"""Four stages over one loop: pre-training, mid-training, SFT and INT4 QAT."""

from mobilemoe.train.events import (
    Alarm,
    ExpertLoads,
    RolledBack,
    StepMetrics,
    StepSkipped,
    TrainEvent,
)
from mobilemoe.train.loop import Trainer, load_weights
from mobilemoe.train.midtrain import midtrain
from mobilemoe.train.pretrain import pretrain
from mobilemoe.train.qat import control, qat
from mobilemoe.train.settings import Settings
from mobilemoe.train.sft import sft
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
    "control",
    "load_weights",
    "midtrain",
    "pretrain",
    "qat",
    "sft",
    "state_sha256",
]
