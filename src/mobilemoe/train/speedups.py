"""What trades time, memory and start-up of a model without changing what it computes.

Both wrap the single-device model from outside: parameter names stay.
"""

from __future__ import annotations

from functools import partial

from torch.utils.checkpoint import checkpoint

from mobilemoe.model import MobileMoE
from mobilemoe.model.attention import Attention
from mobilemoe.model.moe import SwiGLU
from mobilemoe.model.norm import RMSNorm
from mobilemoe.recipe import Run


def speed_up(model: MobileMoE, run: Run) -> MobileMoE:
    """Apply what `run` asks for to `model`; returns it."""
    if run.compile:
        compile_parts(model)
    if run.activation_checkpointing:
        checkpoint_layers(model)
    return model


def checkpoint_layers(model: MobileMoE) -> None:
    """Keep only what goes into each layer; the backward pass computes the rest again.

    A layer appends its routing to the trace a second time then: read the trace before.
    """
    for layer in model.model.layers:
        layer.forward = partial(
            checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False
        )


def compile_parts(model: MobileMoE) -> None:
    """Compile what has fixed shapes: attention, norms, the shared expert.

    Routed experts get another number of rows in every step, which would compile again and again.
    """
    for module in model.modules():
        if isinstance(module, Attention | RMSNorm | SwiGLU):
            module.compile()
