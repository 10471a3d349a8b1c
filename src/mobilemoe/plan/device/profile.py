"""What is known of one device: rates per thread count, cost factors, power and price.

The two rates are those of plain loops: bytes read and int8 products per second. What a model
really takes is a multiple of them, one cost factor per kind of work (`terms.TERMS`), so that a
thread count on which no model was ever timed needs the two rates only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from mobilemoe.config import KvFormat
from mobilemoe.errors import MobileMoEError
from mobilemoe.plan.device.constant import Constant
from mobilemoe.weights import WeightFormat

Key = TypeVar("Key", bound=str)


@dataclass(frozen=True)
class DeviceProfile:
    """One device and the engine on it.

    `memory_bytes`: RAM that an app may use. `cache_bytes`: the last cache; a model that fits it
    is not read from memory again. `chunk_tokens`: tokens of a prompt computed at a time.
    `projection_passes`: how often the engine multiplies the attention projections.
    `read_bytes_s`, `mac_s`: by thread count. `weights`: cost factors per weight format.
    `attention`: cost factors per format of the KV cache. `power`: watts by phase ("prefill",
    "decode"). `electricity`: money per kWh; `per_hour`: money per hour of use.
    """

    name: str
    title: str
    threads: int
    memory_bytes: Constant
    cache_bytes: Constant
    chunk_tokens: Constant
    projection_passes: Constant
    read_bytes_s: Mapping[int, Constant]
    mac_s: Mapping[int, Constant]
    weights: Mapping[WeightFormat, Mapping[str, Constant]]
    attention: Mapping[KvFormat, Mapping[str, Constant]]
    power: Mapping[str, Constant]
    electricity: Constant
    per_hour: Constant

    def rates(self, threads: int | None = None) -> tuple[Constant, Constant]:
        """Return bytes/s and MAC/s of `threads` threads, by default the profile's own.

        Raises:
            MobileMoEError: for a thread count that the profile says nothing of.
        """
        threads = self.threads if threads is None else threads
        if threads not in self.read_bytes_s:
            raise MobileMoEError(
                f"threads is {threads!r}; allowed with {self.name}: "
                f"{', '.join(map(str, self.read_bytes_s))}",
                hint=f"add the rates of {threads} threads to a copy of the profile",
            )
        return self.read_bytes_s[threads], self.mac_s[threads]

    def costs(self, weight_format: WeightFormat, kv_format: KvFormat) -> Mapping[str, Constant]:
        """Return every cost factor that applies, by term.

        Raises:
            MobileMoEError: for a format that the profile says nothing of.
        """
        matrices = self._known("weight_format", weight_format, self.weights)
        return {**matrices, **self._known("kv_format", kv_format, self.attention)}

    def _known(
        self, field: str, value: Key, table: Mapping[Key, Mapping[str, Constant]]
    ) -> Mapping[str, Constant]:
        if value not in table:
            raise MobileMoEError(
                f"{field} is {value!r}; allowed with {self.name}: {', '.join(table)}",
                hint="nothing was measured or published for it on this device",
            )
        return table[value]

    def constants(self) -> Iterator[tuple[str, Constant]]:
        """Yield every number with its path in the profile's file."""
        for key in ("memory_bytes", "cache_bytes", "chunk_tokens", "projection_passes"):
            yield key, getattr(self, key)
        for threads, rate in self.read_bytes_s.items():
            yield f"read_bytes_s.{threads}", rate
        for threads, rate in self.mac_s.items():
            yield f"mac_s.{threads}", rate
        for weight_format, costs in self.weights.items():
            yield from ((f"weights.{weight_format}.{key}", cost) for key, cost in costs.items())
        for kv_format, costs in self.attention.items():
            yield from ((f"attention.{kv_format}.{key}", cost) for key, cost in costs.items())
        yield from ((f"power.{key}", watts) for key, watts in self.power.items())
        yield "price.electricity", self.electricity
        yield "price.per_hour", self.per_hour
