"""What is known of one GPU and its place in a node: small TOML files, each number with a source."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

from mobilemoe.errors import MobileMoEError
from mobilemoe.plan.cluster.quantity import Quantity

UNITS: Mapping[str, str] = {
    "memory": "B",
    "bf16_flops": "FLOP/s",
    "fp32_flops": "FLOP/s",
    "hbm_bandwidth": "B/s",
    "node_bandwidth": "B/s",
    "network_bandwidth": "B/s",
    "price": "$/GPU-hour",
    "mfu": "of the peak",
}


@dataclass(frozen=True)
class GpuProfile:
    """One GPU. Bandwidths are per GPU and direction: to its node's GPUs, to other nodes.

    FLOP/s are dense peaks. `mfu` is the share of the peak that training this family reaches on
    one GPU, communication that overlaps not counted; `price` is money per GPU and hour.
    """

    name: str
    memory: Quantity
    bf16_flops: Quantity
    fp32_flops: Quantity
    hbm_bandwidth: Quantity
    node_bandwidth: Quantity
    network_bandwidth: Quantity
    price: Quantity
    mfu: Quantity

    def quantities(self) -> tuple[Quantity, ...]:
        """Every number of the profile."""
        return tuple(getattr(self, name) for name in UNITS)


def known_gpus() -> tuple[str, ...]:
    """Return the names that `gpu_profile` knows, in order."""
    folder = files("mobilemoe.plan.cluster") / "gpus"
    names = (entry.name for entry in folder.iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml")))


def gpu_profile(name: str) -> GpuProfile:
    """Return the profile called `name` (case does not matter), or read the TOML file of that path.

    Raises:
        MobileMoEError: if there is none, or the file lacks a number or its source.
    """
    if name.lower() in known_gpus():
        entry = files("mobilemoe.plan.cluster") / "gpus" / f"{name.lower()}.toml"
        return _profile(entry.read_text(encoding="utf-8"), name.lower())
    path = Path(name)
    if path.suffix != ".toml":
        raise MobileMoEError(
            f"gpu is {name!r}; allowed: {', '.join(known_gpus())}, or the path of a .toml file",
            hint="copy one of plan/cluster/gpus/*.toml and change its numbers",
        )
    try:
        return _profile(path.read_text(encoding="utf-8"), name)
    except (OSError, UnicodeDecodeError) as error:
        raise MobileMoEError(f"cannot read the GPU profile {name}: {error}") from error


def _profile(text: str, where: str) -> GpuProfile:
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise MobileMoEError(f"GPU profile {where}: {error}") from error
    needed = [field.name for field in fields(GpuProfile)]
    wrong = sorted(set(needed) ^ set(table))
    if wrong:
        raise MobileMoEError(
            f"GPU profile {where}: missing or unknown {', '.join(wrong)}",
            hint=f"needed are {', '.join(needed)}",
        )
    quantities = {key: _quantity(where, key, table[key]) for key in UNITS}
    return GpuProfile(name=str(table["name"]), **quantities)


def _quantity(where: str, key: str, entry: Any) -> Quantity:
    if not isinstance(entry, dict) or set(entry) != {"value", "kind", "source"}:
        raise MobileMoEError(
            f"GPU profile {where}: {key} is {entry!r}; "
            'allowed: { value = number, kind = "published", source = "..." }'
        )
    return Quantity(key, entry["value"], UNITS[key], entry["kind"], entry["source"])
