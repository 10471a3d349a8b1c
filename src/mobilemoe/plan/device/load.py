"""Device profiles as small TOML files: no unknown key, no missing one, each number with a source.

name = "my-laptop"
title = "..."
threads = 2
memory_bytes = { value = 8e9, unit = "B", origin = "assumed", source = "..." }
...                                   # cache_bytes, chunk_tokens, projection_passes
[read_bytes_s]                        # per thread count, and [mac_s] alike
2 = { value = ..., unit = "B/s", ... }
[weights.int4]                        # cost factors by term, and [weights.bf16]
[attention.int8]                      # cost factors by term, and fp16, fp32
[power]                               # prefill, decode: W
[price]                               # electricity: $/kWh; per_hour: $/h
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import fields
from importlib.resources import files
from pathlib import Path
from typing import Any, NoReturn, get_args

from mobilemoe.config import KvFormat
from mobilemoe.errors import MobileMoEError
from mobilemoe.plan.device.constant import Constant
from mobilemoe.plan.device.profile import DeviceProfile
from mobilemoe.plan.device.terms import ATTENTION_TERMS, WEIGHT_TERMS
from mobilemoe.weights import WeightFormat

Table = Mapping[str, Any]
SCALARS: Mapping[str, str] = {
    "memory_bytes": "B",
    "cache_bytes": "B",
    "chunk_tokens": "tokens",
    "projection_passes": "passes",
}
POWER: Mapping[str, str] = {"prefill": "W", "decode": "W"}
PRICE: Mapping[str, str] = {"electricity": "$/kWh", "per_hour": "$/h"}
TOP_KEYS = (
    *("name", "title", "threads", *SCALARS, "read_bytes_s", "mac_s"),
    *("weights", "attention", "power", "price"),
)
_PACKAGE, _FOLDER = "mobilemoe.plan.device", "profiles"
_HINT = "`mobilemoe plan device` lists the profiles; copy one and change its numbers"


def builtin_profiles() -> tuple[str, ...]:
    """Return the names of the profiles that come with the package."""
    names = (entry.name for entry in (files(_PACKAGE) / _FOLDER).iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml")))


def load_profile(name_or_path: str | Path) -> DeviceProfile:
    """Return the built-in profile of that name (case does not matter), or read a TOML file.

    Raises:
        MobileMoEError: if there is none, or the file has an unknown or missing key or a number
            that is not allowed.
    """
    name = str(name_or_path)
    if name.lower() in builtin_profiles():
        entry = files(_PACKAGE) / _FOLDER / f"{name.lower()}.toml"
        return parse_profile(entry.read_text(encoding="utf-8"), name.lower())
    if Path(name).suffix != ".toml":
        allowed = ", ".join(builtin_profiles())
        raise MobileMoEError(
            f"device is {name!r}; allowed: {allowed}, or the path of a .toml file", hint=_HINT
        )
    try:
        return parse_profile(Path(name).read_text(encoding="utf-8"), name)
    except (OSError, UnicodeDecodeError) as error:
        raise MobileMoEError(f"cannot read the device profile {name}: {error}") from error


def parse_profile(text: str, where: str) -> DeviceProfile:
    """Return the profile that `text` describes; `where` names it in errors.

    Raises:
        MobileMoEError: as `load_profile`.
    """
    try:
        return _Reader(where).profile(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise MobileMoEError(f"device profile {where}: {error}") from error


class _Reader:
    """Turns tables into a profile; errors say in which file and at which key."""

    def __init__(self, where: str) -> None:
        self._where = where

    def profile(self, table: Table) -> DeviceProfile:
        self._keys("", table, TOP_KEYS, TOP_KEYS)
        power, price = (
            self._table(key, table[key], units, required=tuple(units))
            for key, units in (("power", POWER), ("price", PRICE))
        )
        read, multiply = self._rates(table, "read_bytes_s"), self._rates(table, "mac_s")
        self._require(set(read) == set(multiply), "mac_s", list(multiply), f"for {list(read)}")
        threads = table["threads"]
        known = type(threads) is int and threads in read
        self._require(known, "threads", threads, f"one of [read_bytes_s]: {list(read)}")
        scalars = {key: self._constant(key, table[key], unit) for key, unit in SCALARS.items()}
        for key in ("chunk_tokens", "projection_passes"):
            value = scalars[key].value
            self._require(value >= 1 and value == int(value), key, value, "a whole number from 1")
        return DeviceProfile(
            name=self._text("name", table["name"]),
            title=self._text("title", table["title"]),
            threads=threads,
            **scalars,
            read_bytes_s=read,
            mac_s=multiply,
            weights=self._formats("weights", table, get_args(WeightFormat), WEIGHT_TERMS),
            attention=self._formats("attention", table, get_args(KvFormat), ATTENTION_TERMS),
            power=power,
            electricity=price["electricity"],
            per_hour=price["per_hour"],
        )

    def _rates(self, table: Table, key: str) -> dict[int, Constant]:
        """Read the rates of each thread count; a rate of 0 would take forever."""
        entries, unit = self._mapping(key, table[key]), {"read_bytes_s": "B/s", "mac_s": "MAC/s"}
        found = {}
        for threads, entry in entries.items():
            count = threads.isascii() and threads.isdigit() and int(threads) > 0
            self._require(count, key, threads, "a thread count from 1 as key")
            rate = self._constant(f"{key}.{threads}", entry, unit[key])
            self._require(rate.value > 0, f"{key}.{threads}", rate.value, "a number above 0")
            found[int(threads)] = rate
        self._require(bool(found), key, entries, "at least one thread count")
        return found

    def _formats(
        self, key: str, table: Table, formats: tuple[Any, ...], terms: Mapping[str, str]
    ) -> dict[Any, dict[str, Constant]]:
        entries = self._mapping(key, table[key])
        self._keys(key, entries, formats, ())
        self._require(bool(entries), key, {}, f"at least one of {', '.join(formats)}")
        return {name: self._table(f"{key}.{name}", one, terms) for name, one in entries.items()}

    def _table(
        self, path: str, value: object, units: Mapping[str, str], required: tuple[str, ...] = ()
    ) -> dict[str, Constant]:
        table = self._mapping(path, value)
        self._keys(path, table, tuple(units), required)
        return {key: self._constant(f"{path}.{key}", table[key], units[key]) for key in table}

    def _constant(self, path: str, value: object, unit: str) -> Constant:
        entry = self._mapping(path, value)
        keys = tuple(field.name for field in fields(Constant))
        self._keys(path, entry, keys, keys)
        self._require(entry["unit"] == unit, f"{path}.unit", entry["unit"], repr(unit))
        try:
            return Constant(**entry)
        except MobileMoEError as error:
            message = error.message.removeprefix("constant: ")
            self._fail(f"{path}: {message}", error.hint)

    def _mapping(self, path: str, value: object) -> Table:
        if not isinstance(value, Mapping):
            self._fail(f"{path} is {value!r}; allowed: a table")
        return value

    def _text(self, path: str, value: object) -> str:
        if not isinstance(value, str) or not value:
            self._fail(f"{path} is {value!r}; allowed: a text")
        return value

    def _keys(
        self, path: str, table: Table, known: tuple[str, ...], required: tuple[str, ...]
    ) -> None:
        place = f"[{path}]" if path else "the top level"
        for key in table:
            self._require(key in known, "a key of " + place, key, ", ".join(known))
        missing = [key for key in required if key not in table]
        if missing:
            self._fail(f"{place} lacks {', '.join(missing)}")

    def _require(self, condition: bool, path: str, value: object, allowed: str) -> None:
        if not condition:
            self._fail(f"{path} is {value!r}; allowed: {allowed}")

    def _fail(self, message: str, hint: str = _HINT) -> NoReturn:
        raise MobileMoEError(f"device profile {self._where}: {message}", hint=hint)
