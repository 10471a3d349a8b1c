"""What the planner is asked: the limits of a device, the training budget, the shapes to look at."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Literal, get_args

from mobilemoe.config import LLAMA3_VOCAB_SIZE, KvFormat
from mobilemoe.errors import MobileMoEError
from mobilemoe.plan.family import GRANULARITIES, GRANULARITY

if TYPE_CHECKING:
    from mobilemoe.plan.device import DeviceProfile

MIN_VOCAB_SIZE = 256  # every byte must be writable
MOST_WORK = 1e40  # FLOPs or tokens: beyond, products leave the range of numbers
TYPICAL_DEPTH = 1024  # positions in the cache at which decoding is timed, our choice
Preference = Literal["loss", "memory", "speed", "training"]


@dataclass(frozen=True)
class Constraints:
    """The limits of one device and of one training budget; None is no limit.

    `memory_bytes` holds the INT4 weights and the KV cache of `context` tokens in `kv_format`.
    `flops_per_token` limits the forward pass without attention scores, `decode_tok_s` the speed
    with `decode_depth` positions in the cache (None: 1,024, or `context` if that is less), and
    `ttft_s` the seconds before the first token of an answer to `prompt_tokens`. Both speeds need
    a `device`; `threads` None takes the number of threads its profile names.

    `train_flops` is the pre-training budget: tokens = train_flops / (6 active parameters) unless
    `tokens` are given (arXiv 2605.27358). `granularities` and `shared_expert` say which forms of
    experts are looked at: g fine experts per expert equivalent, with and without a shared one.
    `prefer` decides among models whose losses the law cannot tell apart.

    Raises:
        MobileMoEError: naming the field, its value and what is allowed.
    """

    memory_bytes: int
    context: int = 8192
    vocab_size: int = LLAMA3_VOCAB_SIZE
    kv_format: KvFormat = "int8"
    flops_per_token: int | None = None
    device: DeviceProfile | None = None
    threads: int | None = None
    decode_tok_s: float | None = None
    decode_depth: int | None = None
    ttft_s: float | None = None
    prompt_tokens: int = 1024
    train_flops: float | None = None
    tokens: float | None = None
    granularities: tuple[int, ...] = (GRANULARITY,)
    shared_expert: tuple[bool, ...] = (True,)
    extrapolate: bool = False
    prefer: Preference = "loss"

    def __post_init__(self) -> None:
        _check_whole_numbers(self)
        _check_numbers(self)
        _choice("kv_format", self.kv_format, get_args(KvFormat))
        _choice("prefer", self.prefer, get_args(Preference))
        for granularity in self.granularities:
            _choice("granularities", granularity, GRANULARITIES)
        if not self.granularities or not self.shared_expert:
            raise MobileMoEError("constraints: granularities and shared_expert may not be empty")
        _check_device(self)

    @property
    def depth(self) -> int:
        """Positions in the cache at which decoding is timed."""
        return self.decode_depth or min(TYPICAL_DEPTH, self.context)


def _check_whole_numbers(constraints: Constraints) -> None:
    ranges = {
        "memory_bytes": (1, 2**63 - 1),
        "context": (1, 2**31 - 1),
        "vocab_size": (MIN_VOCAB_SIZE, 2**31 - 1),
        "flops_per_token": (1, 2**63 - 1),
        "threads": (1, 4096),
        "decode_depth": (1, constraints.context),
        "prompt_tokens": (1, constraints.context),
    }
    optional = ("flops_per_token", "threads", "decode_depth")
    for name, (low, high) in ranges.items():
        value = getattr(constraints, name)
        if value is None and name in optional:
            continue
        if name == "prompt_tokens" and constraints.ttft_s is None:
            continue
        if type(value) is not int or not low <= value <= high:
            _refuse(name, value, f"a whole number, {low} to {high}")


def _check_numbers(constraints: Constraints) -> None:
    for name in ("decode_tok_s", "ttft_s", "train_flops", "tokens"):
        value = getattr(constraints, name)
        if value is None:
            continue
        if type(value) not in (int, float) or not isfinite(value) or not 0 < value <= MOST_WORK:
            _refuse(name, value, f"a positive number, at most {MOST_WORK:g}")


def _check_device(constraints: Constraints) -> None:
    if constraints.device is not None:
        return
    for name in ("decode_tok_s", "decode_depth", "ttft_s", "threads"):
        if getattr(constraints, name) is not None:
            raise MobileMoEError(
                f"constraints: {name} is {getattr(constraints, name)!r} but there is no device",
                hint="name one: speeds are predicted from the constants of a device profile",
            )
    if constraints.prefer == "speed":
        raise MobileMoEError("constraints: prefer is 'speed' but there is no device")


def _choice(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        _refuse(name, value, ", ".join(map(str, allowed)))


def _refuse(name: str, value: object, allowed: str) -> None:
    raise MobileMoEError(
        f"constraints: {name} is {value!r}; allowed: {allowed}", hint=f"correct {name}"
    )
