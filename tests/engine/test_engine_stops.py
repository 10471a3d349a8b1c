"""Stop strings over pieces of text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilemoe.engine.stops import StopMatcher
from mobilemoe.errors import MobileMoEError

pieces = st.lists(st.text("ab", max_size=4), max_size=8)
stops = st.lists(st.text("ab", min_size=1, max_size=4), max_size=3)


def run(matcher, texts):
    shown = ""
    for text in texts:
        more, stopped = matcher.push(text)
        shown += more
        if stopped:
            return shown, True
    return shown + matcher.flush(), False


@given(texts=pieces, stop=stops)
def test_shows_everything_before_a_stop_string(texts, stop):
    shown, stopped = run(StopMatcher(stop), texts)
    # The generation ends with the first piece that completes any stop string.
    prefixes = ["".join(texts[: n + 1]) for n in range(len(texts))]
    ended = next((text for text in prefixes if any(s in text for s in stop)), None)
    assert stopped == (ended is not None)
    whole = "".join(texts)
    expected = min(ended.find(s) for s in stop if s in ended) if ended else len(whole)
    assert shown == whole[:expected]


def test_holds_back_no_more_than_it_must():
    matcher = StopMatcher(["<end>"])
    assert matcher.push("abc<en") == ("abc", False)
    assert matcher.push("x") == ("<enx", False)
    assert matcher.push("<end>tail") == ("", True)


@pytest.mark.parametrize("stop", ["", ["a", ""], [1]])
def test_bad_stop_strings_are_refused(stop):
    with pytest.raises(MobileMoEError, match="stop is"):
        StopMatcher([stop] if stop == "" else stop)
