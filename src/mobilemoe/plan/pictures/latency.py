"""What requests of several sizes cost on the device: time, energy and money, part by part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mobilemoe.config import KvFormat, ModelConfig
from mobilemoe.plan.device import (
    Constant,
    DeviceProfile,
    Request,
    RequestCost,
    request_cost,
)

# A short question, a page to summarise, a long document; tokens of prompt and answer.
PROMPTS, ANSWER = (64, 256, 1024, 4096), 128


@dataclass(frozen=True)
class Latencies:
    """The costs of some requests on one device; `inputs` is everything that they rest on."""

    device: str
    costs: tuple[RequestCost, ...]
    inputs: tuple[tuple[str, Constant], ...]


def latencies(
    profile: DeviceProfile,
    config: ModelConfig,
    requests: Sequence[Request],
    *,
    threads: int | None = None,
    kv_format: KvFormat = "int8",
) -> Latencies:
    """Return the cost of each request.

    Raises:
        MobileMoEError: for threads or a number format that the profile says nothing of.
    """
    costs = tuple(
        request_cost(profile, config, each, threads=threads, kv_format=kv_format)
        for each in requests
    )
    return Latencies(profile.title, costs, costs[0].inputs if costs else ())


def usual_requests(context: int) -> tuple[Request, ...]:
    """Return requests from a short question to a long document, as far as `context` holds them."""
    fitting = [prompt for prompt in PROMPTS if prompt + ANSWER <= context]
    if fitting:
        return tuple(Request(prompt, ANSWER) for prompt in fitting)
    return (Request(max(1, context // 2), max(1, context // 2)),)


def decode_ms(cost: RequestCost) -> float:
    """Return the milliseconds after the first token."""
    return cost.total_ms - cost.ttft_ms
