"""Four stages over one loop: pre-training, mid-training, SFT and INT4 QAT."""

from mobilemoe.train.events import StepMetrics
from mobilemoe.train.loop import Trainer, load_weights
from mobilemoe.train.midtrain import midtrain
from mobilemoe.train.pretrain import pretrain
from mobilemoe.train.qat import control, qat
from mobilemoe.train.settings import Settings
from mobilemoe.train.sft import sft

__all__ = [
    "Settings",
    "StepMetrics",
    "Trainer",
    "control",
    "load_weights",
    "midtrain",
    "pretrain",
    "qat",
    "sft",
]
