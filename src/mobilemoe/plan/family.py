"""The family of shapes that the planner chooses from: width, depth and expert equivalents.

Everything else follows from those three (arXiv 2605.27358): the dense FFN would be 4 D wide;
E expert equivalents of that width are split into 8 E fine experts of d_ff / 8; a shared
expert that is always on replaces four of them, four times as wide; each token also uses the
best four of the rest. E = 1 is the dense model. Its published sizes S, M and L are members.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

from mobilemoe.config import ModelConfig
from mobilemoe.weights import GROUP_SIZE

EXPERT_EQUIVALENTS = (1, 2, 4, 8, 16, 32)
GRANULARITY = 8  # fine experts per expert equivalent
SHARED_FINE_EXPERTS = 4  # fine experts that the shared expert replaces
TOP_K = GRANULARITY - SHARED_FINE_EXPERTS  # so that a token's FFN is 4 D wide for every E
FFN_RATIO = 4  # d_ff / D before splitting
HEAD_DIM = 64
MAX_KV_HEADS = 4
WIDTH_PER_LAYER = 40
WIDTHS = range(GROUP_SIZE, 2048 + 1, GROUP_SIZE)
MAX_LAYERS = ceil(WIDTHS[-1] / WIDTH_PER_LAYER)


@dataclass(frozen=True)
class Shape:
    """One member: width D, layers and expert equivalents E."""

    hidden_size: int
    num_hidden_layers: int
    expert_equivalents: int

    @property
    def fine_width(self) -> int:
        """Width of one routed expert: d_ff / 8."""
        return FFN_RATIO * self.hidden_size // GRANULARITY

    @property
    def is_kernel_friendly(self) -> bool:
        """Whether whole heads fill the width and whole INT4 groups fill an expert."""
        return self.hidden_size % HEAD_DIM == 0 and self.fine_width % GROUP_SIZE == 0

    @property
    def has_family_depth(self) -> bool:
        """Whether the depth is the one that goes with the width; see `family_depth`."""
        return self.num_hidden_layers == family_depth(self.hidden_size)

    def wider(self) -> Shape | None:
        """Return the next larger kernel-friendly shape with this E, or None at the end."""
        hidden = self.hidden_size + HEAD_DIM
        if hidden > WIDTHS[-1]:
            return None
        return Shape(hidden, family_depth(hidden), self.expert_equivalents)

    def config(self, vocab_size: int, context: int) -> ModelConfig:
        """Return the model of this shape; rotary constants and special tokens are nano's.

        Raises:
            MobileMoEError: if the shape is not kernel-friendly or the vocabulary has no room
                for the special tokens.
        """
        heads = self.hidden_size // HEAD_DIM
        is_dense = self.expert_equivalents == 1
        shared = 1 if is_dense else SHARED_FINE_EXPERTS / GRANULARITY
        routed = GRANULARITY * self.expert_equivalents - SHARED_FINE_EXPERTS
        return replace(
            ModelConfig.preset("nano"),
            vocab_size=vocab_size,
            hidden_size=self.hidden_size,
            intermediate_size=0 if is_dense else self.fine_width,
            intermediate_size_mlp=int(shared * FFN_RATIO * self.hidden_size),
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads(heads),
            head_dim=HEAD_DIM,
            num_local_experts=0 if is_dense else routed,
            num_experts_per_tok=0 if is_dense else TOP_K,
            max_position_embeddings=context,
        )


def family_depth(hidden_size: int) -> int:
    """Return the layers of a width: one per 40, rounded up, as in S, M and L."""
    return ceil(hidden_size / WIDTH_PER_LAYER)


def kv_heads(heads: int) -> int:
    """Return the most KV heads, up to 4, that divide `heads` and serve at least two each."""
    shared = (n for n in range(1, MAX_KV_HEADS + 1) if heads % n == 0 and heads >= 2 * n)
    return max(shared, default=1)


def family() -> tuple[Shape, ...]:
    """Return every width (steps of 32), depth and E that the planner looks at."""
    return tuple(
        Shape(hidden, layers, experts)
        for hidden in WIDTHS
        for layers in range(1, MAX_LAYERS + 1)
        for experts in EXPERT_EQUIVALENTS
    )
