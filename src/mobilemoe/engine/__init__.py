"""The native engine: load a checkpoint, INT4 or BF16, read logits, generate tokens.

Never imports torch. The numbers are computed by the C++ module `_native`; this room adds
validation, sampling and text.
"""

from mobilemoe.engine.generation import FinishReason, Token
from mobilemoe.engine.loading import load
from mobilemoe.engine.logprobs import TokenLogprob
from mobilemoe.engine.model import Activations, Kv, Model
from mobilemoe.engine.plan import MemoryPlan
from mobilemoe.engine.prefix import SessionPool
from mobilemoe.engine.probe import FeedForwardOutput, LayerProbe
from mobilemoe.engine.residency import Residency
from mobilemoe.engine.routing import RoutingTrace, collect_routing
from mobilemoe.engine.session import Prefill, Session
from mobilemoe.engine.start_line import StartLine
from mobilemoe.engine.threads import default_threads

__all__ = [
    "Activations",
    "FeedForwardOutput",
    "FinishReason",
    "Kv",
    "LayerProbe",
    "MemoryPlan",
    "Model",
    "Prefill",
    "Residency",
    "RoutingTrace",
    "Session",
    "SessionPool",
    "StartLine",
    "Token",
    "TokenLogprob",
    "collect_routing",
    "default_threads",
    "load",
]
