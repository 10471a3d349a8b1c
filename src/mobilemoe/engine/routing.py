"""Routing traces: how often each expert was chosen, collected from prompts and kept in a file.

L layers that route, E experts, T tokens, K top-k.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mobilemoe.atomic import atomic_write
from mobilemoe.checkpoint.text_files import JSON_LIMIT, no_duplicates, read_text
from mobilemoe.engine.checks import is_integer
from mobilemoe.errors import MobileMoEError

if TYPE_CHECKING:
    from mobilemoe.engine.model import Model

KIND = "mobilemoe routing trace"
MOST = 2**53  # choices of one expert: what every JSON reader keeps exactly
_HINT = "make one with `mobilemoe generate PATH --prompt TEXT --save-routing FILE`"


@dataclass(frozen=True, eq=False)
class RoutingTrace:
    """Choices of each expert [L, E].

    Raises:
        MobileMoEError: unless it is a table of whole numbers, 0 or more.
    """

    counts_LE: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        counts = self.counts_LE
        valid = isinstance(counts, np.ndarray) and counts.ndim == 2 and counts.dtype.kind in "iu"
        if not valid or (counts < 0).any() or (counts > MOST).any():
            raise MobileMoEError("a routing trace has other entries than counts", hint=_HINT)

    def check(self, layers: int, experts: int) -> None:
        """Refuse the trace of another model.

        Raises:
            MobileMoEError: unless it is for so many layers and experts.
        """
        if self.counts_LE.shape != (layers, experts):
            raise MobileMoEError(
                f"the routing trace has the shape {list(self.counts_LE.shape)}; allowed: "
                f"[{layers}, {experts}], the model's layers that route and experts",
                hint=_HINT,
            )

    def hottest(self, count: int) -> list[tuple[int, int]]:
        """Return layer and expert of the `count` most chosen, hottest first, none never chosen.

        Ties go to the lower layer, then to the lower expert.
        """
        order = np.argsort(-self.counts_LE.ravel(), kind="stable")[: max(0, count)]
        E = self.counts_LE.shape[1]
        return [divmod(int(i), E) for i in order if self.counts_LE.ravel()[i] > 0]

    def __add__(self, other: RoutingTrace) -> RoutingTrace:
        """Return the choices of both; raises as `check`."""
        other.check(*self.counts_LE.shape)
        return RoutingTrace(self.counts_LE + other.counts_LE)

    def save(self, path: str | Path) -> None:
        """Write it as JSON, atomically.

        Raises:
            MobileMoEError: if the disk refuses.
        """
        document = {"kind": KIND, "counts": self.counts_LE.tolist()}
        atomic_write(Path(path), json.dumps(document) + "\n")

    @classmethod
    def read(cls, path: str | Path) -> RoutingTrace:
        """Read what `save` wrote.

        Raises:
            MobileMoEError: if the file is missing or holds anything else.
        """
        try:
            text = read_text(Path(path), JSON_LIMIT).decode()
            return _from_document(json.loads(text, object_pairs_hook=no_duplicates))
        except (OSError, ValueError, RecursionError) as error:  # MobileMoEError is a ValueError
            reason = error.message if isinstance(error, MobileMoEError) else str(error)
            raise MobileMoEError(f"cannot read a routing trace: {reason}", hint=_HINT) from error


def _from_document(document: Any) -> RoutingTrace:
    if not isinstance(document, dict) or set(document) != {"kind", "counts"}:
        raise ValueError("it has other keys than kind and counts")
    rows = document["counts"]
    if document["kind"] != KIND or not isinstance(rows, list) or not rows:
        raise ValueError(f"it is not a {KIND}")
    for row in rows:
        valid = isinstance(row, list) and len(row) == len(rows[0]) and len(row) > 0
        if not valid or not all(is_integer(count) and 0 <= count <= MOST for count in row):
            raise ValueError("its counts are not a table of whole numbers")
    return RoutingTrace(np.array(rows, np.int64))


def collect_routing(model: Model, prompts: Iterable[Sequence[int]]) -> RoutingTrace:
    """Return how `model` routes `prompts`, lists of token ids, each in a context of its own.

    Raises:
        MobileMoEError: for a prompt that is empty or longer than the context, and for a model
            that routes nothing.
    """
    if not model.config.is_moe:
        raise MobileMoEError("the model routes nothing", hint="a dense model has no experts")
    session, E = model.session(), model.config.num_local_experts
    counts_LE: npt.NDArray[np.int64] = np.zeros(0, np.int64)
    for prompt in prompts:
        session.rewind(0)
        session.append(prompt)
        routed_LTK = session.routing()
        new_LE = np.stack([np.bincount(ids.ravel(), minlength=E) for ids in routed_LTK])
        counts_LE = new_LE + counts_LE if counts_LE.size else new_LE.astype(np.int64)
    return RoutingTrace(counts_LE)
