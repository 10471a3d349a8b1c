"""What -p, -n, -d and -t ask for, and what does not fit."""

from __future__ import annotations

import pytest

from mobilemoe.errors import MobileMoEError
from mobilemoe.profile.cases import Case, cases, needed_context


def test_every_combination_once_threads_outside():
    found = cases([512, 512], [16, 32], [0, 4096], [1, 2])
    assert len(found) == len(set(found)) == 2 * 2 * 3
    assert [case.threads for case in found] == [1] * 6 + [2] * 6
    assert [case.label for case in found[:6]] == [
        "pp512",
        "tg16",
        "tg32",
        "pp512 @ d4096",
        "tg16 @ d4096",
        "tg32 @ d4096",
    ]


def test_a_length_of_zero_leaves_the_kind_out():
    assert cases([0], [8], [3], [1]) == (Case("decode", 8, 3, 1),)
    assert cases([8], [], [3], [1]) == (Case("prefill", 8, 3, 1),)
    with pytest.raises(MobileMoEError, match="nothing to measure"):
        cases([0], [0], [0], [1])


def test_the_context_is_that_of_the_longest_case():
    found = cases([100, 7], [50], [0, 60], [1])
    assert needed_context(found, 160, "x") == 160
    with pytest.raises(MobileMoEError, match=r"-p 100 at -d 60 needs a context of 160") as caught:
        needed_context(found, 159, "tiny")
    assert "at most 159, the max_position_embeddings of tiny" in caught.value.message
    with pytest.raises(MobileMoEError, match=r"-n 50 at -d 9 needs a context of 59"):
        needed_context(cases([], [50], [9], [1]), 58, "x")
