"""Four stages over one loop: pre-training, mid-training, SFT and INT4 QAT."""

from mobilemoe.train.loop import StepMetrics, Trainer, load_weights
from mobilemoe.train.midtrain import midtrain
from mobilemoe.train.pretrain import pretrain
from mobilemoe.train.qat import control, qat
from mobilemoe.train.sft import sft
from mobilemoe.train.stage import Stage

__all__ = [
    "Stage",
    "StepMetrics",
    "Trainer",
    "control",
    "load_weights",
    "midtrain",
    "pretrain",
    "qat",
    "sft",
]
