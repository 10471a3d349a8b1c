"""The table of a sweep: what was appended is there, what was half written is not."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mobilemoe.errors import MobileMoEError
from mobilemoe.sweep import Rows, read_rows


def row(key: str, loss: float = 1.5) -> dict[str, object]:
    """Return the least that a row holds."""
    return {"key": key, "fingerprint": "f", "loss": loss}


def filled(path: Path, keys: str) -> Path:
    """Write a table with a row per letter."""
    rows = Rows(path)
    for key in keys:
        rows.append(row(key))
    rows.close()
    return path


def test_a_second_start_finds_the_rows_and_goes_on_after_them(tmp_path: Path) -> None:
    path = filled(tmp_path / "deep" / "rows.jsonl", "ab")
    again = Rows(path)
    assert list(again.done) == ["a", "b"]
    again.append(row("c", 2.0))
    again.close()
    assert [(r["key"], r["loss"]) for r in read_rows(path)] == [("a", 1.5), ("b", 1.5), ("c", 2.0)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(cut=st.integers(1, 150))
def test_a_file_cut_anywhere_keeps_its_whole_rows(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "rows.jsonl"
    path.unlink(missing_ok=True)
    filled(path, "abc")
    content = path.read_bytes()[: -min(cut, path.stat().st_size)]
    path.write_bytes(content)
    whole = content.count(b"\n")
    assert len(read_rows(path)) == whole
    rows = Rows(path)
    assert list(rows.done) == list("abc")[:whole]
    rows.append(row("z"))
    rows.close()
    assert [r["key"] for r in read_rows(path)] == [*list("abc")[:whole], "z"]


@pytest.mark.parametrize("line", ["{", "[]", '{"key": "a"}', '"text"', "\\xff"])
def test_a_damaged_whole_line_is_named_and_nothing_is_changed(tmp_path: Path, line: str) -> None:
    path = filled(tmp_path / "rows.jsonl", "a")
    path.write_bytes(path.read_bytes() + line.encode() + b"\n")
    before = path.read_bytes()
    for attempt in (Rows, read_rows):
        with pytest.raises(MobileMoEError, match="line 2 is damaged"):
            attempt(path)
    assert path.read_bytes() == before


def test_a_loss_that_is_not_a_number_is_not_written(tmp_path: Path) -> None:
    rows = Rows(tmp_path / "rows.jsonl")
    with pytest.raises(ValueError, match="JSON"):
        rows.append(row("a", float("nan")))
    rows.close()
    assert read_rows(tmp_path / "rows.jsonl") == ()


def test_a_table_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(MobileMoEError, match="cannot write"):
        Rows(tmp_path)
    with pytest.raises(MobileMoEError, match="cannot read the table"):
        read_rows(tmp_path / "none.jsonl")
