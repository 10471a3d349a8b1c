"""Seconds of a prompt and of a decoded token on a device: cost factors times amounts."""

from __future__ import annotations

from collections.abc import Mapping

from mobilemoe.config import KvFormat, ModelConfig
from mobilemoe.errors import MobileMoEError
from mobilemoe.plan.device.constant import Constant
from mobilemoe.plan.device.profile import DeviceProfile
from mobilemoe.plan.device.terms import Rates, decode_terms, prefill_terms
from mobilemoe.weights import WeightFormat


def decode_seconds(
    profile: DeviceProfile,
    config: ModelConfig,
    depth: float,
    *,
    threads: int | None = None,
    kv_format: KvFormat = "int8",
    weight_format: WeightFormat = "int4",
) -> float:
    """Return the seconds of one token with `depth` positions in the cache.

    Raises:
        MobileMoEError: for a negative depth, or threads or formats the profile does not know.
    """
    _check("depth", depth, 0)
    rates = rates_of(profile, threads)
    amounts = decode_terms(config, depth, rates, weight_format, kv_format)
    return _seconds(profile.costs(weight_format, kv_format), amounts)


def prefill_seconds(
    profile: DeviceProfile,
    config: ModelConfig,
    tokens: int,
    *,
    depth: float = 0,
    threads: int | None = None,
    kv_format: KvFormat = "int8",
    weight_format: WeightFormat = "int4",
) -> float:
    """Return the seconds of a prompt of `tokens` after `depth` others: TTFT without sampling.

    Never less than one decoded token: a short prompt has to read the weights, too.

    Raises:
        MobileMoEError: for no tokens, a negative depth, or threads or formats the profile does
            not know.
    """
    _check("tokens", tokens, 1)
    _check("depth", depth, 0)
    rates = rates_of(profile, threads)
    amounts = prefill_terms(config, tokens, depth, rates, weight_format)
    last = decode_terms(config, depth + tokens - 1, rates, weight_format, kv_format)
    costs = profile.costs(weight_format, kv_format)
    return max(_seconds(costs, amounts), _seconds(costs, last))


def rates_of(profile: DeviceProfile, threads: int | None = None) -> Rates:
    """Return what of `profile` decides the amounts; raises as `DeviceProfile.rates`."""
    read, multiply = profile.rates(threads)
    return Rates(
        read_bytes_s=read.value,
        mac_s=multiply.value,
        cache_bytes=profile.cache_bytes.value,
        chunk_tokens=int(profile.chunk_tokens.value),
        projection_passes=int(profile.projection_passes.value),
    )


def _seconds(costs: Mapping[str, Constant], amounts: Mapping[str, float]) -> float:
    """Sum up; a term that the profile leaves out costs nothing there.

    Raises:
        MobileMoEError: if none costs anything.
    """
    seconds = sum(costs[term].value * amounts[term] for term in amounts if term in costs)
    if not seconds > 0:
        raise MobileMoEError(
            f"the device profile gives none of {', '.join(amounts)} a cost: no time passes",
            hint="give [weights.*] and [attention.*] of the profile factors above 0",
        )
    return seconds


def _check(name: str, value: float, low: int) -> None:
    if not value >= low:
        raise MobileMoEError(f"{name} is {value!r}; allowed: at least {low}")
