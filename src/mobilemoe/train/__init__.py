"""One loop for the four stages of a recipe: pre-training, mid-training, SFT and INT4 QAT."""

from mobilemoe.train.events import StepMetrics
from mobilemoe.train.loop import Trainer, load_weights
from mobilemoe.train.settings import Settings

__all__ = [
    "Settings",
    "StepMetrics",
    "Trainer",
    "load_weights",
]
