"""The family of shapes that the planner chooses from: width, depth and the form of the experts.

Everything else follows from those (arXiv 2605.27358): the dense FFN would be 4 D wide; E expert
equivalents of that width are split into g E fine experts of d_ff / g; a shared expert that is
always on replaces g / 2 of them, as wide as they are together; each token also uses the best
g / 2 of the rest, so that its FFN is 4 D wide for every E and g. Without a shared expert it uses
the best g. E = 1 is the dense model. The published sizes S, M and L are members: g = 8, shared.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

from mobilemoe.config import LLAMA3_VOCAB_SIZE, ModelConfig
from mobilemoe.weights import GROUP_SIZE

EXPERT_EQUIVALENTS = (1, 2, 4, 8, 16, 32)
GRANULARITIES = (1, 2, 4, 8, 16)  # the published sweep's
GRANULARITY = 8  # fine experts per expert equivalent
FFN_RATIO = 4  # d_ff / D before splitting
HEAD_DIM = 64
MAX_KV_HEADS = 4
MANY_HEADS = 8  # from here on, the family shares keys and values over two heads at least
EXPERT_PARALLEL = 4  # devices that share the experts in training (arXiv 2605.27358)
WIDTH_PER_LAYER = 40
DEPTH_SLACK = 0.1  # of the family's depth, rounded down: none below ten layers
WIDTHS = range(GROUP_SIZE, 2048 + 1, GROUP_SIZE)
MAX_LAYERS = ceil(WIDTHS[-1] / WIDTH_PER_LAYER * (1 + DEPTH_SLACK))


@dataclass(frozen=True)
class Shape:
    """One member: width D, layers, expert equivalents E, granularity g, shared expert or not."""

    hidden_size: int
    num_hidden_layers: int
    expert_equivalents: int
    granularity: int = GRANULARITY
    shared_expert: bool = True

    @property
    def is_dense(self) -> bool:
        """Whether there is nothing to route."""
        return self.expert_equivalents == 1

    @property
    def heads(self) -> int:
        """Query heads of `HEAD_DIM` that fill the width."""
        return self.hidden_size // HEAD_DIM

    @property
    def fine_width(self) -> int:
        """Width of one routed expert: d_ff / g."""
        return FFN_RATIO * self.hidden_size // self.granularity

    @property
    def top_k(self) -> int:
        """Routed experts per token, so that its FFN is 4 D wide; 0 if dense."""
        return 0 if self.is_dense else self.granularity - self.shared_fine_experts

    @property
    def shared_fine_experts(self) -> int:
        """Fine experts that the shared expert replaces."""
        return self.granularity // 2 if self.shared_expert else 0

    @property
    def routed_experts(self) -> int:
        """Experts that a router chooses from; 0 if dense."""
        if self.is_dense:
            return 0
        return self.granularity * self.expert_equivalents - self.shared_fine_experts

    @property
    def always_on_width(self) -> int:
        """Width of the shared expert, or of the whole FFN of a dense model."""
        if self.is_dense:
            return FFN_RATIO * self.hidden_size
        return self.shared_fine_experts * self.fine_width

    @property
    def is_kernel_friendly(self) -> bool:
        """Whether whole heads fill the width, in shared groups, and INT4 groups every expert."""
        fills = self.hidden_size % HEAD_DIM == 0
        shares = self.heads < MANY_HEADS or kv_heads(self.heads) > 1
        return fills and shares and (self.is_dense or self.fine_width % GROUP_SIZE == 0)

    @property
    def is_shared_evenly(self) -> bool:
        """Whether the devices of an expert-parallel group would hold equally many experts."""
        return self.routed_experts % EXPERT_PARALLEL == 0

    @property
    def has_family_depth(self) -> bool:
        """Whether the depth is the one that goes with the width; see `family_depth`."""
        return self.num_hidden_layers == family_depth(self.hidden_size)

    def wider(self) -> Shape | None:
        """Return the next larger kernel-friendly shape of this form, or None at the end."""
        for hidden in range(self.hidden_size + GROUP_SIZE, WIDTHS[-1] + 1, GROUP_SIZE):
            shape = replace(self, hidden_size=hidden, num_hidden_layers=family_depth(hidden))
            if shape.is_kernel_friendly:
                return shape
        return None

    def config(self, vocab_size: int, context: int) -> ModelConfig:
        """Return the model of this shape.

        Rotary constants and special tokens are the release's if the vocabulary is, else nano's.

        Raises:
            MobileMoEError: if the shape is not kernel-friendly or the vocabulary has no room
                for the special tokens.
        """
        base = "S" if vocab_size == LLAMA3_VOCAB_SIZE else "nano"
        return replace(
            ModelConfig.preset(base),
            vocab_size=vocab_size,
            hidden_size=self.hidden_size,
            intermediate_size=0 if self.is_dense else self.fine_width,
            intermediate_size_mlp=self.always_on_width,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.heads,
            num_key_value_heads=kv_heads(self.heads),
            head_dim=HEAD_DIM,
            num_local_experts=self.routed_experts,
            num_experts_per_tok=self.top_k,
            max_position_embeddings=context,
        )


def family_depth(hidden_size: int) -> int:
    """Return the layers of a width: one per 40, rounded up, as in S, M and L."""
    return ceil(hidden_size / WIDTH_PER_LAYER)


def depths(hidden_size: int) -> range:
    """Return the depths that the planner looks at for a width."""
    middle = family_depth(hidden_size)
    slack = int(DEPTH_SLACK * middle)
    return range(middle - slack, middle + slack + 1)


def kv_heads(heads: int) -> int:
    """Return the most KV heads, up to 4, that divide `heads` and serve at least two each."""
    shared = (n for n in range(1, MAX_KV_HEADS + 1) if heads % n == 0 and heads >= 2 * n)
    return max(shared, default=1)


def family(
    granularities: tuple[int, ...] = (GRANULARITY,), shared_expert: tuple[bool, ...] = (True,)
) -> tuple[Shape, ...]:
    """Return every width (steps of 32), depth, E and form that the planner looks at.

    The dense model is one shape, whatever the granularities.
    """
    forms = [(1, GRANULARITY, True)]
    forms += [
        (experts, granularity, shared)
        for experts in EXPERT_EQUIVALENTS[1:]
        for granularity in granularities
        for shared in shared_expert
        if granularity > 1 or not shared  # a single fine expert has no half to share
    ]
    return tuple(
        Shape(hidden, layers, *form)
        for hidden in WIDTHS
        for layers in range(1, MAX_LAYERS + 1)
        for form in forms
    )
