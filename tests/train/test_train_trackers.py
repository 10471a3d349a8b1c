"""Trackers, against a stand-in for the foreign package: what is sent, and what failure does."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from event_stream import step

from mobilemoe.errors import MobileMoEError
from mobilemoe.train.events import Alarm, ExpertLoads, RolledBack, StepSkipped
from mobilemoe.train.trackers import NoTracker, TrackerName, tracker

STAND_IN = """
import json, os, pathlib

HERE = pathlib.Path(__file__).parent


def note(word, values):
    print("a greeting")
    with (HERE / "calls.jsonl").open("a") as file:
        file.write(json.dumps([word, values], allow_nan=False) + "\\n")


class Run:
    def log(self, values):
        if os.environ.get("FAKE_FAILS") == "log":
            raise ConnectionError("the server is gone")
        note("log", values)


def finish():
    if os.environ.get("FAKE_FAILS") == "finish":
        raise ConnectionError("the server is gone")
    note("finish", None)


def init(**arguments):
    if os.environ.get("WANDB_MODE") != "offline" and os.environ.get("FAKE_FAILS") == "init":
        raise RuntimeError("api_key not configured")
    note("init", arguments)
    return Run()
"""


@pytest.fixture(params=["wandb", "trackio"])
def service(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[TrackerName, Path]:
    """The name of an installed service and the file of its calls."""
    name: TrackerName = request.param
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    importlib.invalidate_caches()
    return name, tmp_path / name / "calls.jsonl"


def calls(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_is_sent_with_its_recipe_and_every_number(service: tuple[TrackerName, Path]) -> None:
    name, path = service
    sent = tracker(name, "nano", {"seed": 7})
    assert sent.log(step(3, stage="sft", mfu=None, grad_norm=float("inf"))) is None
    assert sent.log(ExpertLoads("sft", 3, ((1, 2),))) is None
    sent.finish()
    start, (word, values), end = calls(path)
    about = {"project": "mobilemoe", "name": "nano", "config": {"seed": 7}, "resume": "allow"}
    assert start == ["init", about]
    assert end == ["finish", None]
    assert word == "log" and values["sft/step"] == 3 and values["sft/tokens_seen"] == 3 * 2048
    expected = step(3, stage="sft")
    assert values["sft/loss/code"] == expected.domain_loss["code"]
    names = {"loss", "lr", "dropped_share", "worst_load", "router_entropy", "tok_s", "z_loss"}
    assert names <= {key.removeprefix("sft/") for key in values}
    assert "sft/mfu" not in values and "sft/grad_norm" not in values


def test_a_service_that_talks_does_so_on_stderr(
    service: tuple[TrackerName, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    sent = tracker(service[0], "nano", {})
    sent.log(step(1))
    sent.finish()
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("a greeting") == 3


def test_trouble_is_counted(service: tuple[TrackerName, Path]) -> None:
    name, path = service
    sent = tracker(name, "nano", {})
    for number in (4, 5):
        sent.log(StepSkipped("sft", number, "", float("nan"), 1.0, (), ()))
    sent.log(RolledBack("sft", 5, 3, ""))
    sent.log(Alarm("sft", 5, "collapse", ""))
    logged = [values for word, values in calls(path) if word == "log"]
    assert [values.get("sft/skipped") for values in logged] == [1, 2, None, None]
    assert logged[2] == {"sft/rolled_back": 1, "sft/step": 5}
    assert logged[3] == {"sft/alarms": 1, "sft/step": 5}


def test_a_service_that_fails_raises_one_alarm_and_training_goes_on(
    service: tuple[TrackerName, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, path = service
    sent = tracker(name, "nano", {})
    monkeypatch.setenv("FAKE_FAILS", "log")
    alarm = sent.log(step(1))
    assert isinstance(alarm, Alarm) and alarm.kind == "tracker" and alarm.step == 1
    assert "the server is gone" in alarm.message and name in alarm.message
    monkeypatch.delenv("FAKE_FAILS")
    assert sent.log(step(2)) is None
    sent.finish()
    assert [word for word, _ in calls(path)] == ["init"]


def test_a_service_that_fails_at_the_end_is_forgiven(
    service: tuple[TrackerName, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = tracker(service[0], "nano", {})
    monkeypatch.setenv("FAKE_FAILS", "finish")
    sent.finish()


def test_a_service_that_cannot_start_says_how_to_work_offline(
    service: tuple[TrackerName, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, path = service
    monkeypatch.setenv("FAKE_FAILS", "init")
    with pytest.raises(MobileMoEError, match="cannot start: api_key not configured") as caught:
        tracker(name, "nano", {})
    assert ("WANDB_MODE=offline" if name == "wandb" else "TRACKIO_SPACE_ID") in caught.value.hint
    monkeypatch.setenv("WANDB_MODE", "offline")
    tracker(name, "nano", {})
    assert calls(path)[0][0] == "init"


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_missing_package_is_one_error_with_the_command(
    name: TrackerName, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)  # what Python itself does for "not there"
    with pytest.raises(MobileMoEError, match=f"run.tracker is '{name}'") as caught:
        tracker(name, "nano", {})
    assert caught.value.hint.startswith(f"pip install {name}")


def test_no_tracker_sends_nothing_and_an_unknown_one_is_refused() -> None:
    quiet = tracker("none", "nano", {})
    assert isinstance(quiet, NoTracker) and quiet.log(step(1)) is None
    quiet.finish()
    with pytest.raises(MobileMoEError, match="allowed: none, trackio, wandb"):
        tracker("mlflow", "nano", {})  # type: ignore[arg-type]
