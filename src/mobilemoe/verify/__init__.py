"""A receipt for a checkpoint: layout, values, text, and parity from torch to the int8 engine."""

from mobilemoe.verify.pairs import Comparison, EndToEnd, Pair, Parity
from mobilemoe.verify.progress import Progress
from mobilemoe.verify.receipt import Check, Receipt, Section
from mobilemoe.verify.run import verify

__all__ = [
    "Check",
    "Comparison",
    "EndToEnd",
    "Pair",
    "Parity",
    "Progress",
    "Receipt",
    "Section",
    "verify",
]
