"""The published speeds of two phones, and the constants that they imply.

Source: "MobileMoE: Scaling On-Device Mixture of Experts", arXiv 2605.27358: ExecuTorch with a
fused MoE op, INT4 weights, INT8 dynamic activations, one request at a time. Decode in tokens per
second with a context of 256, 1k and 4k, and the time to the first token of a prompt of 1k and 4k.
The dense model there is MobileLLM-Pro.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mobilemoe.config import ModelConfig
from mobilemoe.plan.device.constant import Constant
from mobilemoe.plan.device.fit import fit_costs
from mobilemoe.plan.device.measurement import Measurement
from mobilemoe.plan.device.profile import DeviceProfile
from mobilemoe.plan.device.terms import ATTENTION_TERMS, WEIGHT_TERMS, Rates

PAPER = "arXiv 2605.27358"
DECODE_CONTEXTS, PROMPTS = (256, 1024, 4096), (1024, 4096)
# Two models and ten cells carry no more constants than these.
TERMS = (
    *("decode_dense", "decode_experts", "decode_attention"),
    *("prefill_dense", "prefill_experts", "prefill_attention"),
)
READING = ("decode_dense", "decode_experts")  # counted against bytes per second
WHOLE_PROMPT = 131_072
HOURS_PER_YEAR = 8766
POWER_SOURCE = "no figure is published: the whole phone while its big cores work; replace it"
_UNIT = Rates(read_bytes_s=1e9, mac_s=1e9, cache_bytes=0, chunk_tokens=WHOLE_PROMPT)


@dataclass(frozen=True)
class Phone:
    """One phone's cells: tokens/s at `DECODE_CONTEXTS` and seconds at `PROMPTS`, by preset."""

    title: str
    threads: int
    memory_bytes: float
    memory_source: str
    watts: Mapping[str, float]
    price: float
    decode_tok_s: Mapping[str, tuple[float, ...]]
    ttft_s: Mapping[str, tuple[float, ...]]
    years: int = 3


PHONES: Mapping[str, Phone] = {
    "galaxy-s25": Phone(
        title="Samsung Galaxy S25 (Snapdragon 8 Elite), ExecuTorch, 4 threads",
        threads=4,
        memory_bytes=5e9,
        memory_source="of 12 GB; the paper's own budget for its models is about 5 GB",
        watts={"prefill": 8.0, "decode": 6.0},
        price=800.0,
        decode_tok_s={"mobilellm-pro": (61.3, 45.8, 18.6), "S": (138.1, 112.0, 48.9)},
        ttft_s={"mobilellm-pro": (4.26, 35.62), "S": (2.01, 16.36)},
    ),
    "iphone-16-pro": Phone(
        title="Apple iPhone 16 Pro (A18 Pro), ExecuTorch, 2 threads",
        threads=2,
        memory_bytes=4e9,
        memory_source="half of 8 GB: the system ends apps that take much more",
        watts={"prefill": 6.0, "decode": 5.0},
        price=1000.0,
        decode_tok_s={"mobilellm-pro": (61.0, 48.5, 17.9), "S": (204.6, 148.4, 54.2)},
        ttft_s={"mobilellm-pro": (6.03, 39.08), "S": (2.14, 13.86)},
    ),
}


def published_cells(name: str) -> tuple[Measurement, ...]:
    """Return the cells of the phone called `name`, a key of `PHONES`."""
    return tuple(_cells(PHONES[name]))


def unit_rates(row: Measurement) -> Rates:
    """Return rates of one: of a phone nobody measured plain rates, so factors are times."""
    return _UNIT


def _cells(phone: Phone) -> Iterator[Measurement]:
    for model, speeds in phone.decode_tok_s.items():
        config = ModelConfig.preset(model)
        for context, speed in zip(DECODE_CONTEXTS, speeds, strict=True):
            yield Measurement(model, config, "decode", 1, context, phone.threads, 1 / speed)
        for prompt, seconds in zip(PROMPTS, phone.ttft_s[model], strict=True):
            yield Measurement(model, config, "prefill", prompt, 0, phone.threads, seconds)


def phone_profile(name: str) -> DeviceProfile:
    """Fit the phone called `name`: its rates are those that the dense model reached."""
    phone = PHONES[name]
    costs = fit_costs(published_cells(name), unit_rates, TERMS)
    read, multiply = costs["weights.int4.decode_dense"], costs["weights.int4.prefill_dense"]
    source = f"least squares on the 10 cells of {PAPER} for this phone"

    def fitted(value: float, unit: str) -> Constant:
        return Constant(_rounded(value), unit, "published", source)

    def factors(table: str, terms: Mapping[str, str]) -> dict[str, Constant]:
        """Return the factors against the rate that each kind of work is counted in."""
        return {
            term: fitted(
                costs[f"{table}.{term}"] / (read if term in READING else multiply), terms[term]
            )
            for term in TERMS
            if term in terms
        }

    return DeviceProfile(
        name=name,
        title=phone.title,
        threads=phone.threads,
        **_stated(phone),
        read_bytes_s={phone.threads: fitted(1e9 / read, "B/s")},
        mac_s={phone.threads: fitted(1e9 / multiply, "MAC/s")},
        weights={"int4": factors("weights.int4", WEIGHT_TERMS)},
        attention={"int8": factors("attention.int8", ATTENTION_TERMS)},
    )


def _rounded(value: float) -> float:
    """Three digits: more would promise what ten cells cannot keep."""
    return float(f"{value:.3g}")


def _stated(phone: Phone) -> dict[str, Any]:
    """Return what neither the tables nor anybody's bench says: labelled as assumed."""
    hours = HOURS_PER_YEAR * phone.years
    per_hour = _rounded(phone.price / hours)
    spread = f"a phone of {phone.price:.0f} $ used up in {phone.years} years, every hour alike"
    whole = "the tables name no chunks: a prompt goes through whole"
    return {
        "memory_bytes": Constant(phone.memory_bytes, "B", "assumed", phone.memory_source),
        "cache_bytes": Constant(0.0, "B", "assumed", "far below the published models"),
        "chunk_tokens": Constant(WHOLE_PROMPT, "tokens", "assumed", whole),
        "projection_passes": Constant(1, "passes", "assumed", "int8 activations in one term"),
        "power": {
            phase: Constant(watts, "W", "assumed", POWER_SOURCE)
            for phase, watts in phone.watts.items()
        },
        "electricity": Constant(0.17, "$/kWh", "assumed", "a household's price, charger included"),
        "per_hour": Constant(per_hour, "$/h", "assumed", spread),
    }
