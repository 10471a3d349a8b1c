"""A profile as the text of its TOML file; `load.parse_profile` reads it back unchanged."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from mobilemoe.plan.device.constant import Constant
from mobilemoe.plan.device.load import SCALARS
from mobilemoe.plan.device.profile import DeviceProfile


def dump_profile(profile: DeviceProfile) -> str:
    """Return the file's text."""
    return "\n".join(_lines(profile)) + "\n"


def _lines(profile: DeviceProfile) -> Iterator[str]:
    yield f"name = {_text(profile.name)}"
    yield f"title = {_text(profile.title)}"
    yield f"threads = {profile.threads}"
    yield from (_line(key, getattr(profile, key)) for key in SCALARS)
    yield from _table("read_bytes_s", {str(n): rate for n, rate in profile.read_bytes_s.items()})
    yield from _table("mac_s", {str(n): rate for n, rate in profile.mac_s.items()})
    for weight_format, costs in profile.weights.items():
        yield from _table(f"weights.{weight_format}", costs)
    for kv_format, costs in profile.attention.items():
        yield from _table(f"attention.{kv_format}", costs)
    yield from _table("power", profile.power)
    yield from _table("price", {"electricity": profile.electricity, "per_hour": profile.per_hour})


def _table(name: str, entries: Mapping[str, Constant]) -> Iterator[str]:
    yield ""
    yield f"[{name}]"
    yield from (_line(key, constant) for key, constant in entries.items())


def _line(key: str, constant: Constant) -> str:
    fields = (
        f"value = {_number(constant.value)}",
        f"unit = {_text(constant.unit)}",
        f"origin = {_text(constant.origin)}",
        f"source = {_text(constant.source)}",
    )
    return f"{key} = {{ {', '.join(fields)} }}"


def _number(value: float) -> str:
    """Return the shortest spelling that reads back as the same number."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def _text(text: str) -> str:
    """Return a TOML basic string: JSON's escapes are among its own, but for DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
