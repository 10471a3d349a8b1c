"""One model that the planner looked at: its shape and everything that is compared."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from mobilemoe.config import ModelConfig
from mobilemoe.plan.family import Shape


@dataclass(frozen=True)
class LossEstimate:
    """The law's loss in nats per token, and where the law was asked for it.

    `outside` names what of the model is outside the fitted range ("active_params", "tokens",
    "num_experts", "granularity", "shared_expert"); () is a plain prediction. Unless extrapolated,
    the law was asked at the edge of its range: `active_params` and `tokens` are that point.
    """

    loss: float
    outside: tuple[str, ...]
    active_params: float
    tokens: float
    extrapolated: bool = False


@dataclass(frozen=True)
class Candidate:
    """A shape with a vocabulary and a context, its costs, and its loss if the law has one.

    `weight_bytes` are those of the INT4 file's tensors, `kv_bytes` the KV cache of the whole
    context; `tokens` are the training tokens that `loss` and `training_flops` (6 N D) belong to.
    `decode_tok_s` and `ttft_s` are None without a device.
    """

    shape: Shape
    vocab_size: int
    context: int
    total_params: int
    active_params: int
    weight_bytes: int
    kv_bytes: int
    tokens: float
    training_flops: float
    loss: LossEstimate | None
    decode_tok_s: float | None = None
    ttft_s: float | None = None

    @property
    def memory_bytes(self) -> int:
        """Bytes of INT4 weights and KV cache."""
        return self.weight_bytes + self.kv_bytes

    @property
    def flops_per_token(self) -> int:
        """Forward FLOPs per token without attention scores: 2 N_active."""
        return 2 * self.active_params

    @property
    def expert_equivalents(self) -> int:
        """The law's E; 1 is dense."""
        return self.shape.expert_equivalents

    @cached_property
    def config(self) -> ModelConfig:
        """The model, ready to be trained."""
        return self.shape.config(self.vocab_size, self.context)
