"""The start line says what runs, and the fingerprint tells checkpoints apart."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from engine_support import BF16_FOLDER, INT4_FOLDERS, SMALL, write_random

import mobilemoe
from mobilemoe.checkpoint import open_checkpoint
from mobilemoe.checkpoint.fingerprint import fingerprint
from mobilemoe.engine import load
from mobilemoe.engine.start_line import display_name
from mobilemoe.engine.threads import thread_plan
from mobilemoe.errors import CheckpointError

FOLDER = INT4_FOLDERS[0]


def test_it_names_everything_a_report_needs():
    model = load(FOLDER, context=100)
    line = model.start_line()
    plan = thread_plan()
    text = str(line)
    assert text.count("\n") == 1
    for part in (
        f"mobilemoe {mobilemoe.__version__}: tiny-int4 {fingerprint(open_checkpoint(FOLDER))}, ",
        "int4 weights, int8 activations; ",
        f"; {model.instruction_set}, {plan.threads} thread",
        f" ({plan.reason})\nmemory {model.memory_plan}",
    ):
        assert part in text
    assert "KV 0." in text and "100 tokens" in text and "limit " in text
    exact = load(BF16_FOLDER, threads=1, kernel="portable").start_line()
    assert "bf16 weights, fp32 activations; portable, 1 thread (" in str(exact)


def test_threads_that_were_asked_for_are_told_from_planned_ones():
    planned = thread_plan().threads
    line = load(FOLDER, threads=planned + 1).start_line()
    assert line.threads == planned + 1
    assert line.threads_reason.startswith(f"asked for; by default {planned}: ")
    assert "asked for" not in str(load(FOLDER).start_line())


def test_it_is_announced_before_loading_and_the_same_afterwards():
    said = []
    model = load(FOLDER, threads=1, announce=said.append)
    assert said == [model.start_line()]


def test_it_goes_through_json():
    line = load(FOLDER, threads=1).start_line()
    values = json.loads(json.dumps(line.to_dict()))
    assert values["memory"]["total"] == line.memory.total
    assert values["model"] == "tiny-int4" and values["instruction_set"] == line.instruction_set


def test_the_name_of_a_model_of_the_hub_is_its_id(tmp_path):
    folder = tmp_path / "models--facebook--MobileMoE-S-QAT" / "snapshots" / ("0" * 40)
    folder.mkdir(parents=True)
    assert display_name(folder) == "facebook/MobileMoE-S-QAT"
    assert display_name(tmp_path / "snapshots" / "x") == "x"
    assert display_name(tmp_path / "models--a--b" / "other" / "x") == "x"


def test_other_weights_config_or_format_make_another_fingerprint(tmp_path):
    """Weights of one shape have the same headers."""
    variants = [
        (SMALL, "int4", 0),
        (SMALL, "int4", 1),
        (SMALL, "bf16", 0),
        (replace(SMALL, rms_norm_eps=1e-6), "int4", 0),
    ]
    seen = set()
    for i, (config, weight_format, seed) in enumerate(variants):
        checkpoint = write_random(tmp_path / str(i), config, weight_format, seed)
        digits = fingerprint(checkpoint)
        assert len(digits) == 12 and int(digits, 16) >= 0
        seen.add(digits)
    assert len(seen) == len(variants)
    shutil.copytree(tmp_path / "0", tmp_path / "copy")
    assert fingerprint(open_checkpoint(tmp_path / "copy")) == fingerprint(
        open_checkpoint(tmp_path / "0")
    )


@pytest.mark.parametrize("size", [100_000, 262_144, 262_145, 2_000_000])
def test_a_fingerprint_reads_a_part_that_reaches_both_ends(tmp_path, size):
    checkpoint = write_random(tmp_path / "model", SMALL)
    path = checkpoint.shards[0]
    content = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    path.write_bytes(content.tobytes())
    before = fingerprint(checkpoint)
    changes = 0
    places = {0, size - 1, *np.random.default_rng(1).integers(0, size, 50).tolist()}
    for place in sorted(places):
        changed = content.copy()
        changed[place] ^= 1
        path.write_bytes(changed.tobytes())
        differs = fingerprint(checkpoint) != before
        changes += differs
        assert differs or place not in (0, size - 1)
    if size <= 262_144:
        assert changes == len(places)
    assert changes >= 2
    path.write_bytes(content.tobytes() + b"\0")
    assert fingerprint(checkpoint) != before


def test_a_file_that_cannot_be_read_is_an_error(tmp_path):
    checkpoint = write_random(tmp_path / "model", SMALL)
    checkpoint.shards[0].unlink()
    with pytest.raises(CheckpointError, match="cannot read "):
        fingerprint(checkpoint)
