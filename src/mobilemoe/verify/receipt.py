"""The receipt: what was checked, what came out, and whether all of it passed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from mobilemoe.verify.pairs import Parity

Status = Literal["pass", "fail", "skip", "info"]


@dataclass(frozen=True)
class Check:
    """One line: what was checked, how it came out, and the finding in words.

    "skip" says why it could not be checked here; "info" is a fact that nothing is held against.
    `data` holds the numbers behind the words.
    """

    name: str
    status: Status
    detail: str
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Section:
    """Checks that belong together."""

    name: str
    checks: tuple[Check, ...]

    @property
    def failed(self) -> bool:
        """Whether any check failed."""
        return any(check.status == "fail" for check in self.checks)


@dataclass(frozen=True)
class Receipt:
    """The result of `verify`; `parity` is None where it was not run."""

    path: str
    sections: tuple[Section, ...]
    parity: Parity | None = None

    @property
    def passed(self) -> bool:
        """Whether nothing failed. What was skipped does not count."""
        return self.first_failure is None

    @property
    def first_failure(self) -> str | None:
        """The first failed check, as "section: check: finding"; None if all passed."""
        for section in self.sections:
            for check in section.checks:
                if check.status == "fail":
                    return f"{section.name}: {check.name}: {check.detail}"
        return None

    def to_dict(self) -> dict[str, Any]:
        """Return the receipt as JSON data; numbers that are not finite become strings."""
        document = {
            "path": self.path,
            "passed": self.passed,
            "first_failure": self.first_failure,
            "sections": [
                {"name": section.name, "checks": [asdict(check) for check in section.checks]}
                for section in self.sections
            ],
            "parity": None if self.parity is None else self.parity.to_dict(),
        }
        result: dict[str, Any] = _json(document)
        return result


def _json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
