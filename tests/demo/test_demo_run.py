"""The whole chain, run for real with few tokens through the command line."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mobilemoe as package
from command_line import DEMO_TOKENS, mobilemoe
from mobilemoe.checkpoint import open_checkpoint
from mobilemoe.demo.chain import Chain
from mobilemoe.demo.events import Advanced, Event, Finished, Stopped
from mobilemoe.demo.schedule import RESERVE_SECONDS, SAFETY, remaining_tokens
from mobilemoe.demo.settings import SHARES, Settings, stage_tokens
from mobilemoe.errors import MobileMoEError


@pytest.fixture(scope="module")
def report(demo_folder: Path) -> Mapping[str, Any]:
    """The report of the run."""
    value: dict[str, Any] = json.loads((demo_folder / "runs/demo/report.json").read_text())
    return value


def model_digest(run: Path) -> str:
    """SHA-256 of the exported INT4 file."""
    return sha256((run / "model" / "model.safetensors").read_bytes()).hexdigest()


def test_it_prints_a_table_and_the_report_path(demo_folder: Path) -> None:
    out = (demo_folder / "stdout.txt").read_text()
    assert "runs/demo/report.html" in out
    assert "decode, tok/s" in out
    assert "loss" in (demo_folder / "stderr.txt").read_text()


def test_the_design_is_the_nano_preset(demo_folder: Path) -> None:
    config = package.ModelConfig.preset("nano")
    assert open_checkpoint(demo_folder / "runs/demo/model").config == config


def test_files_are_as_large_as_planned(report: Mapping[str, Any], demo_folder: Path) -> None:
    for sizes in report["files"].values():
        assert sizes["planned_tensor_bytes"] == sizes["tensor_bytes"]
        assert sizes["header_bytes"] + sizes["tensor_bytes"] == sizes["file_bytes"]
    path = demo_folder / "runs/demo/model/model.safetensors"
    assert path.stat().st_size == report["files"]["int4"]["file_bytes"]


def test_engine_agrees_with_the_fake_quantised_model(report: Mapping[str, Any]) -> None:
    parity = report["parity"]
    assert parity["tokens"] == 200
    assert parity["relative_error"] < 1e-4
    assert parity["int8_median_cosine"] >= 0.999


def test_every_stage_is_in_the_report_with_what_it_did(report: Mapping[str, Any]) -> None:
    stages = {stage["name"]: stage for stage in report["stages"]}
    assert list(stages) == ["pretrain", "midtrain", "sft", "qat"]
    for name, stage in stages.items():
        before, after = stage["heldout_before"], stage["heldout_after"]
        assert set(before) == set(after) == {"code", "knowledge", "math", "instruct"}
        aims = stage["for_domains"]
        lowered = sum(after[d] for d in aims) < sum(before[d] for d in aims)
        assert stage["lowered"] == lowered
        warned = any(name in warning for warning in report["warnings"])
        assert warned != lowered
    assert stages["pretrain"]["lowered"]


def test_perplexity_in_the_report_can_be_recomputed(
    report: Mapping[str, Any], demo_folder: Path
) -> None:
    """Score the exported file once more, with the engine instead of torch."""
    from mobilemoe.data import build_dataset
    from mobilemoe.evaluate.engine_loss import engine_heldout_loss

    run = demo_folder / "runs/demo"
    batches = build_dataset(run / "data").heldout_batches("math", 512, 8, 4096)
    loss = engine_heldout_loss(package.load(run / "model", activations="fp32"), batches)
    rows = {row["name"]: row["perplexity"] for row in report["quantization"]["rows"]}
    assert loss.perplexity == pytest.approx(rows["QAT INT4"]["math"], rel=1e-4)


@pytest.mark.parametrize("domain", ["code", "knowledge", "math"])
def test_the_fast_mode_costs_less_than_half_a_percent_of_perplexity(
    demo_folder: Path, domain: str
) -> None:
    from mobilemoe.data import build_dataset
    from mobilemoe.evaluate.engine_loss import engine_heldout_loss

    run = demo_folder / "runs/demo"
    batches = list(build_dataset(run / "data").heldout_batches(domain, 512, 8, 4096))
    exact = engine_heldout_loss(package.load(run / "model", activations="fp32"), batches)
    fast = engine_heldout_loss(package.load(run / "model"), batches)
    assert fast.tokens == exact.tokens
    assert fast.loss_sums != exact.loss_sums
    assert fast.perplexity == pytest.approx(exact.perplexity, rel=0.005)


def test_expert_use_is_a_distribution(report: Mapping[str, Any]) -> None:
    share = np.array(report["experts"]["share"])
    assert share.shape == (4, 3, 60)
    np.testing.assert_allclose(share.sum(-1), 1)


def test_a_second_start_does_nothing_twice(demo_folder: Path, tmp_path: Path) -> None:
    run = shutil.copytree(demo_folder / "runs/demo", tmp_path / "run")
    seen: list[Event] = []
    settings = Settings(10, 0, DEMO_TOKENS, 0.0)
    Chain(settings, run, seen.append, lambda: False).run()
    assert all(event.resumed for event in seen if isinstance(event, Finished))
    assert not any(isinstance(event, Advanced) for event in seen)


def test_other_arguments_move_the_old_run_aside(demo_folder: Path, tmp_path: Path) -> None:
    run = shutil.copytree(demo_folder / "runs/demo", tmp_path / "run")
    settings = Settings(10, 1, DEMO_TOKENS, 0.0)

    def stop_at_once() -> bool:
        return True

    with pytest.raises(Stopped):
        Chain(settings, run, lambda event: None, stop_at_once).run()
    assert model_digest(tmp_path / "run.1") == model_digest(demo_folder / "runs/demo")
    assert not (run / "model").exists()


def test_ctrl_c_and_a_second_start_give_the_same_bits(demo_folder: Path, tmp_path: Path) -> None:
    """Interrupt the real program with SIGINT in mid-training, then start it again."""
    run = tmp_path / "runs/demo"
    shutil.copytree(demo_folder / "runs/demo/data", run / "data")
    program = Path(sys.executable).with_name("mobilemoe")
    command = [str(program), "demo", "--tokens", str(DEMO_TOKENS)]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        log = run / "stages/pretrain/metrics.jsonl"
        deadline = time.monotonic() + 300
        while not (log.exists() and log.stat().st_size) and time.monotonic() < deadline:
            time.sleep(0.05)
            assert process.poll() is None, process.communicate()
        process.send_signal(signal.SIGINT)
        _, message = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "saved" in message
    assert not (run / "model").exists()
    done = mobilemoe("demo", "--tokens", str(DEMO_TOKENS), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert model_digest(run) == model_digest(demo_folder / "runs/demo")
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps == list(range(1, len(steps) + 1))


@pytest.mark.parametrize(
    ("field", "arguments"),
    [("minutes", (0.5, 0, None)), ("seed", (10, -1, None)), ("tokens", (10, 0, 5))],
)
def test_settings_out_of_range_are_refused(field: str, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(MobileMoEError, match=field):
        Settings(*arguments, 0.0)


def test_minutes_become_tokens_at_the_measured_speed() -> None:
    speeds = dict.fromkeys(SHARES, 1000.0)
    plan = remaining_tokens(RESERVE_SECONDS + 100 / SAFETY, speeds, {})
    assert sum(plan.values()) == pytest.approx(100_000, rel=1e-3)
    assert plan["pretrain"] == pytest.approx(100_000 * SHARES["pretrain"], rel=1e-3)
    slower = remaining_tokens(RESERVE_SECONDS + 100 / SAFETY, speeds | {"qat": 500.0}, {})
    assert sum(slower.values()) == pytest.approx(100_000 / (1 + SHARES["qat"]), rel=1e-3)


def test_a_machine_that_slows_down_trains_less() -> None:
    speeds = dict.fromkeys(SHARES, 1000.0)
    as_measured = remaining_tokens(500, speeds, {"pretrain": 1000.0})
    halved = remaining_tokens(500, speeds, {"pretrain": 500.0})
    assert set(halved) == set(SHARES) - {"pretrain"}
    assert sum(halved.values()) == pytest.approx(sum(as_measured.values()) / 2, rel=1e-3)


def test_no_time_left_is_still_a_plan() -> None:
    assert set(remaining_tokens(0, dict.fromkeys(SHARES, 1000.0), {}).values()) == {0}
    assert sum(stage_tokens(10**6).values()) == 10**6


@pytest.mark.parametrize(("package", "extra"), [("torch", "train"), ("matplotlib", "plots")])
def test_a_base_install_says_what_is_missing(package: str, extra: str, tmp_path: Path) -> None:
    code = f"import sys; sys.modules[{package!r}] = None; from mobilemoe.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "demo"], cwd=tmp_path, text=True, capture_output=True
    )
    assert done.returncode == 1
    assert f"error: `mobilemoe demo` needs {package}" in done.stderr
    assert f'hint: pip install "mobilemoe[{extra}]"' in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
