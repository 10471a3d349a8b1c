"""From a size and a choice of experts to a model: equal active FFN width for every choice.

The dense FFN is d_ff = 4 D wide. E expert equivalents of that width are split into g E fine
experts of d_ff / g, of which a token uses g; a shared expert that is always on takes the place
of half of those g, as wide as they are together (arXiv 2605.27358: E = 8 and g = 8 give 60
routed experts, top-4, and a shared one of half the dense width). So the active width is d_ff
throughout; what differs between choices is the router, E g rows of D.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from mobilemoe.config import ModelConfig
from mobilemoe.errors import MobileMoEError
from mobilemoe.plan.family import FFN_RATIO
from mobilemoe.plan.family import Shape as FamilyShape
from mobilemoe.weights import GROUP_SIZE


@dataclass(frozen=True)
class Experts:
    """One choice: E expert equivalents, granularity g, with or without a shared expert.

    E = 1 is the dense model whatever the others say.
    """

    expert_equivalents: int
    granularity: int
    shared_expert: bool

    @property
    def is_dense(self) -> bool:
        """Whether nothing is routed."""
        return self.expert_equivalents == 1

    def check(self, hidden_size: int) -> None:
        """Refuse what cannot be built at this width.

        Raises:
            MobileMoEError: naming the choice and what is allowed.
        """
        if self.is_dense:
            return
        g, width = self.granularity, FFN_RATIO * hidden_size
        if self.shared_expert and g % 2:
            raise MobileMoEError(
                f"granularity is {g} with a shared expert; allowed: an even number",
                hint="the shared expert takes the place of half of the active experts",
            )
        if width % g or (width // g) % GROUP_SIZE:
            raise MobileMoEError(
                f"granularity is {g} at hidden_size {hidden_size}: experts would be "
                f"{width / g:g} wide; allowed: multiples of {GROUP_SIZE} (INT4 groups)",
                hint=f"use a granularity of at most {width // GROUP_SIZE}, or a wider model",
            )


@dataclass(frozen=True)
class Shape:
    """Width, depth and heads of one size."""

    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int


def build_config(shape: Shape, experts: Experts, vocab_size: int, context: int) -> ModelConfig:
    """Return the model; rotary constants and special tokens are nano's.

    Raises:
        MobileMoEError: if the shape or the choice cannot be built.
    """
    experts.check(shape.hidden_size)
    member = FamilyShape(
        shape.hidden_size,
        shape.layers,
        experts.expert_equivalents,
        experts.granularity,
        experts.shared_expert,
    )
    return replace(
        ModelConfig.preset("nano"),
        vocab_size=vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=0 if member.is_dense else member.fine_width,
        intermediate_size_mlp=member.always_on_width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        num_local_experts=member.routed_experts,
        num_experts_per_tok=member.top_k,
        max_position_embeddings=context,
    )
