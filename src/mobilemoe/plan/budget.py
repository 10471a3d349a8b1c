"""What a small device can afford: the limits that the laptop demonstration designs for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from mobilemoe.config import KvFormat, ModelConfig
from mobilemoe.errors import MobileMoEError
from mobilemoe.plan.search.constraints import MIN_VOCAB_SIZE


@dataclass(frozen=True)
class Budget:
    """The limits of one device. The defaults are those of the laptop demonstration.

    `memory_bytes` holds the INT4 weights and the KV cache of `context` tokens in
    `kv_format`; `flops_per_token` is the forward pass without attention scores.

    Raises:
        MobileMoEError: naming the field, its value and what is allowed.
    """

    memory_bytes: int = 4_750_000
    context: int = 1024
    flops_per_token: int = 3_200_000
    vocab_size: int = 4096
    kv_format: KvFormat = "int8"

    def __post_init__(self) -> None:
        _check_int("memory_bytes", self.memory_bytes, 1, 2**63 - 1)
        _check_int("context", self.context, 1, 2**31 - 1)
        _check_int("flops_per_token", self.flops_per_token, 1, 2**63 - 1)
        _check_int("vocab_size", self.vocab_size, MIN_VOCAB_SIZE, 2**31 - 1)
        if self.kv_format not in get_args(KvFormat):
            allowed = ", ".join(get_args(KvFormat))
            raise MobileMoEError(f"budget: kv_format is {self.kv_format!r}; allowed: {allowed}")

    def kv_bytes(self, config: ModelConfig) -> int:
        """Return the bytes of the KV cache of `config` at this budget's context."""
        return self.context * config.kv_bytes_per_token(self.kv_format)

    def memory_of(self, config: ModelConfig) -> int:
        """Return the bytes of INT4 weights and KV cache that `config` takes."""
        return config.weight_bytes("int4") + self.kv_bytes(config)


def _check_int(name: str, value: object, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        raise MobileMoEError(
            f"budget: {name} is {value!r}; allowed: a whole number, {low} to {high}",
            hint=f"correct {name}",
        )
