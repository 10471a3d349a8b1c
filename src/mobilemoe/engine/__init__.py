"""The native engine: load a checkpoint, INT4 or BF16, read logits, generate tokens.

Never imports torch. The numbers are computed by the C++ module `_native`; this room adds
validation, sampling and text.
"""

from mobilemoe.engine.generation import FinishReason, Token
from mobilemoe.engine.logprobs import TokenLogprob
from mobilemoe.engine.model import Activations, Model, load
from mobilemoe.engine.prefix import SessionPool
from mobilemoe.engine.probe import FeedForwardOutput, LayerProbe
from mobilemoe.engine.session import Prefill, Session
from mobilemoe.engine.threads import default_threads

__all__ = [
    "Activations",
    "FeedForwardOutput",
    "FinishReason",
    "LayerProbe",
    "Model",
    "Prefill",
    "Session",
    "SessionPool",
    "Token",
    "TokenLogprob",
    "default_threads",
    "load",
]
