"""Tables of runs: what is read, what is refused, and which runs a fit takes."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from fit_tables import planted

from mobilemoe import MobileMoEError
from mobilemoe.plan.fit import TrainingRun, read_runs, select_runs
from mobilemoe.plan.fit.runs import scales

ROW: dict[str, Any] = {
    "active_params": 3e6,
    "tokens": 2e7,
    "expert_equivalents": 8,
    "granularity": 8,
    "shared_expert": True,
    "seed": 1,
    "loss": 2.5,
    "total_params": 1.5e7,
    "weight_bytes": 8e6,
}


def write_jsonl(path: Path, *rows: dict[str, Any]) -> Path:
    """Write one object a line, with an empty line that means nothing."""
    path.write_text("\n\n".join(map(json.dumps, rows)) + "\n")
    return path


def test_jsonl_with_more_columns_than_needed(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "runs.jsonl", {**ROW, "hidden_size": 64, "seconds": 3.5})
    assert read_runs(path) == (TrainingRun(**ROW),)


def test_csv_is_the_same_table(tmp_path: Path) -> None:
    runs = planted(noise=0.01, seeds=2)
    names = [name for name in asdict(runs[0]) if name != "total_params"]
    lines = [",".join(names)]
    for run in runs:
        values = (getattr(run, name) for name in names)
        lines.append(",".join("" if value is None else str(value) for value in values))
    path = tmp_path / "runs.csv"
    path.write_text("\n".join(lines))
    assert read_runs(path) == runs


def test_what_a_table_does_not_tell_is_none(tmp_path: Path) -> None:
    needed = {key: ROW[key] for key in ("active_params", "tokens", "expert_equivalents", "loss")}
    (run,) = read_runs(write_jsonl(tmp_path / "runs.jsonl", {**needed, "granularity": None}))
    assert (run.granularity, run.shared_expert, run.seed, run.name) == (None, None, None, "")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("loss", "nan", "loss is 'nan'; allowed: a positive number"),
        ("loss", float("nan"), "loss is nan"),
        ("loss", True, "loss is True"),
        ("tokens", 0, "tokens is 0"),
        ("tokens", [1], "tokens is"),
        ("active_params", "many", "active_params is 'many'"),
        ("expert_equivalents", 0.5, "from 1"),
        ("granularity", 1.5, "granularity is 1.5; allowed: a whole number"),
        ("seed", -1, "seed is -1"),
        ("shared_expert", "perhaps", "shared_expert is 'perhaps'; allowed: true or false"),
    ],
)
def test_a_wrong_value_is_named_with_its_row(
    key: str, value: Any, message: str, tmp_path: Path
) -> None:
    path = write_jsonl(tmp_path / "runs.jsonl", ROW, {**ROW, key: value})
    with pytest.raises(MobileMoEError, match=f"runs.jsonl:3: .*{message}"):
        read_runs(path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("runs.jsonl", "", "no runs"),
        ("runs.csv", "active_params,tokens\n", "no runs"),
        ("runs.jsonl", "[1]", "runs.jsonl:1: not an object"),
        ("runs.jsonl", "{", "runs.jsonl:1"),
        ("runs.jsonl", '{"tokens": 1}', "no active_params, expert_equivalents, loss"),
        ("runs.csv", "active_params,tokens\n1\n", "not as many values"),
        ("runs.csv", "active_params,tokens\n1,2,3\n", "not as many values"),
        ("runs.txt", "1", "a .csv or a .jsonl file"),
    ],
)
def test_a_damaged_table_is_refused(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(MobileMoEError, match=message):
        read_runs(tmp_path / name)
    with pytest.raises(MobileMoEError, match="cannot read"):
        read_runs(tmp_path / "none.csv")


def test_selecting_keeps_dense_runs_for_every_architecture() -> None:
    runs = planted(experts=(1, 8), granularity=8) + planted(experts=(8,), granularity=4)
    chosen = select_runs(runs, granularity=8)
    assert {(run.expert_equivalents, run.granularity) for run in chosen} == {(1, 8), (8, 8)}
    fine = select_runs(runs, granularity=4)
    assert {(run.expert_equivalents, run.granularity) for run in fine} == {(1, 8), (8, 4)}
    assert {r.expert_equivalents for r in select_runs(runs, expert_equivalents=8)} == {8}
    with pytest.raises(MobileMoEError, match="no run has expert_equivalents = 3"):
        select_runs(runs, expert_equivalents=3)
    with pytest.raises(MobileMoEError, match="cannot select by depth"):
        select_runs(runs, depth=3)


def test_scales_join_what_differs_by_less_than_a_tenth() -> None:
    found = scales([3.0, 1.0, 1.05, 3.0, 10.0])
    assert [members for _, members in found] == [(1, 2), (0, 3), (4,)]
    assert [round(value, 4) for value, _ in found] == [1.0247, 3.0, 10.0]
