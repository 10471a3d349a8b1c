"""Reading ahead changes when a batch is read, never which."""

from __future__ import annotations

import numpy as np
import pytest

from mobilemoe.data import Batch
from mobilemoe.errors import MobileMoEError
from mobilemoe.pipeline.ahead import ReadAhead


def batch(step: int) -> Batch:
    """A batch that names its step; step 9 cannot be read."""
    if step == 9:
        raise MobileMoEError("shard 9 is damaged")
    ids_BT = np.full((1, 2), step)
    return Batch(ids_BT, ids_BT, ("code",))


def test_every_step_gets_its_own_batch_also_after_going_back() -> None:
    with ReadAhead(batch) as ahead:
        steps = [0, 1, 2, 3, 1, 2, 7, 8]
        assert [int(ahead(step).ids_BT[0, 0]) for step in steps] == steps


def test_what_reading_raises_comes_with_its_step() -> None:
    with ReadAhead(batch) as ahead:
        assert ahead(8).ids_BT[0, 0] == 8
        with pytest.raises(MobileMoEError, match="shard 9"):
            ahead(9)
        assert ahead(10).ids_BT[0, 0] == 10
