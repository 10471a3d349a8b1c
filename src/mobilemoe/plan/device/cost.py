"""What one request costs on a device: milliseconds, joules, money, and every input of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from mobilemoe.config import KvFormat, ModelConfig
from mobilemoe.errors import MobileMoEError
from mobilemoe.plan.device.constant import Constant
from mobilemoe.plan.device.latency import decode_seconds, prefill_seconds
from mobilemoe.plan.device.profile import DeviceProfile
from mobilemoe.weights import WeightFormat

JOULES_PER_KWH = 3.6e6


@dataclass(frozen=True)
class Request:
    """A prompt and an answer, in tokens.

    Raises:
        MobileMoEError: if either is below 1.
    """

    prompt_tokens: int
    new_tokens: int

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if type(value) is not int or value < 1:
                raise MobileMoEError(
                    f"request: {field.name} is {value!r}; allowed: a whole number from 1"
                )


@dataclass(frozen=True)
class StatedRates:
    """Rates that replace those of a profile: watts, $/kWh, $/h; None keeps the profile's."""

    prefill_watts: float | None = None
    decode_watts: float | None = None
    electricity: float | None = None
    per_hour: float | None = None


@dataclass(frozen=True)
class RequestCost:
    """One request: its first token comes after `ttft_ms`, each other one `tpot_ms` later.

    `tpot_ms` is a mean over the answer, None for an answer of one token. `inputs`: each number
    that the result rests on, with its path in the profile's file.
    """

    request: Request
    ttft_ms: float
    tpot_ms: float | None
    total_ms: float
    joules: float
    money: float
    inputs: tuple[tuple[str, Constant], ...]


def request_cost(
    profile: DeviceProfile,
    config: ModelConfig,
    request: Request,
    *,
    threads: int | None = None,
    rates: StatedRates | None = None,
    kv_format: KvFormat = "int8",
    weight_format: WeightFormat = "int4",
) -> RequestCost:
    """Return what `request` costs: TTFT + (new tokens - 1) x TPOT, and what that consumes.

    Energy is watts of each phase times its seconds; money is that energy at the electricity
    price, and the time at the price of an hour.

    Raises:
        MobileMoEError: for threads or formats the profile does not know, or a rate below 0.
    """
    profile = _with_rates(profile, rates or StatedRates())
    threads = profile.threads if threads is None else threads
    ttft = prefill_seconds(
        profile,
        config,
        request.prompt_tokens,
        threads=threads,
        kv_format=kv_format,
        weight_format=weight_format,
    )
    steps = request.new_tokens - 1
    # Time is linear in the depth, so the mean over the answer is that of its middle.
    middle = request.prompt_tokens + max(0, steps - 1) / 2
    tpot = decode_seconds(
        profile, config, middle, threads=threads, kv_format=kv_format, weight_format=weight_format
    )
    seconds = ttft + steps * tpot
    power = profile.power
    joules = power["prefill"].value * ttft + power["decode"].value * steps * tpot
    money = joules / JOULES_PER_KWH * profile.electricity.value
    money += seconds / 3600 * profile.per_hour.value
    return RequestCost(
        request=request,
        ttft_ms=1e3 * ttft,
        tpot_ms=1e3 * tpot if steps else None,
        total_ms=1e3 * seconds,
        joules=joules,
        money=money,
        inputs=_inputs(profile, threads, kv_format, weight_format),
    )


def _with_rates(profile: DeviceProfile, rates: StatedRates) -> DeviceProfile:
    power: Mapping[str, Constant] = {
        phase: _stated(watts, getattr(rates, f"{phase}_watts"))
        for phase, watts in profile.power.items()
    }
    return replace(
        profile,
        power=power,
        electricity=_stated(profile.electricity, rates.electricity),
        per_hour=_stated(profile.per_hour, rates.per_hour),
    )


def _stated(constant: Constant, value: float | None) -> Constant:
    """Return the profile's number, or the user's in its place."""
    if value is None:
        return constant
    return Constant(value, constant.unit, "assumed", "stated with the question")


def _inputs(
    profile: DeviceProfile, threads: int, kv_format: KvFormat, weight_format: WeightFormat
) -> tuple[tuple[str, Constant], ...]:
    """Return what of the profile is used with these threads and formats."""
    used = {
        *("cache_bytes", "chunk_tokens", "projection_passes"),
        *("power.prefill", "power.decode", "price.electricity", "price.per_hour"),
        *(f"read_bytes_s.{threads}", f"mac_s.{threads}"),
        *(f"weights.{weight_format}.{key}" for key in profile.weights[weight_format]),
        *(f"attention.{kv_format}.{key}" for key in profile.attention[kv_format]),
    }
    return tuple((path, constant) for path, constant in profile.constants() if path in used)
