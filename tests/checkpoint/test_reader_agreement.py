"""The Python and the native reader accept the same files, and refuse all others."""

from __future__ import annotations

import json
import random
from collections import Counter

import fuzz_readers
import pytest
from fuzz_readers import MODELS, compare, kind_of, native_refusal, python_refusal
from model_file_mutations import CHANGES, LAYOUTS, mutated, render, valid_case, valid_file

from mobilemoe.checkpoint.header import header_limit


@pytest.mark.parametrize("model", range(len(MODELS)))
def test_both_accept_a_valid_file(model, tmp_path):
    contents = [render(file) for file in valid_case(model).files]
    assert native_refusal(model, contents) is None
    assert python_refusal(model, contents, tmp_path) is None


def test_both_refuse_the_file_of_another_model(tmp_path):
    for model in range(len(MODELS)):
        contents = [render(valid_file((model + 1) % len(MODELS)))]
        assert native_refusal(model, contents) is not None
        assert python_refusal(model, contents, tmp_path) is not None


@pytest.mark.parametrize("seed", range(4))
def test_they_agree_on_mutated_files(seed, tmp_path):
    """`tools/fuzz_readers.py` does the same for millions."""
    rng, kinds = random.Random(1000 + seed), Counter[str]()
    for _ in range(1000):
        native, python = compare(rng, tmp_path)
        kinds[kind_of(python, tmp_path)] += 1
        assert native is None or len(native) < 600
    assert 100 < kinds["accepted"] < 500, kinds
    assert len(kinds) > 25, kinds


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_every_change_alone_and_often(change, tmp_path):
    for seed in range(60):
        rng = random.Random(seed)
        case = valid_case(seed % len(MODELS))
        for _ in range(1 + seed % 3):
            change(case, rng)
        contents = [render(file) for file in case.files]
        native = native_refusal(case.model, contents)
        python = python_refusal(case.model, contents, tmp_path)
        assert (native is None) == (python is None), (seed, native, python)


def test_the_same_seed_gives_the_same_files():
    first, second = (mutated(random.Random(7)) for _ in range(2))
    assert first == second != mutated(random.Random(8))


def test_a_recorded_run_says_what_it_did(tmp_path, monkeypatch, capsys):
    output = tmp_path / "run.json"
    monkeypatch.setattr("sys.argv", ["fuzz", "--inputs", "50", "--output", str(output)])
    assert fuzz_readers.main() == 0
    record = json.loads(output.read_text())
    assert record["inputs"] == 50 and record["findings"] == []
    assert record["accepted_by_both"] + record["refused_by_both"] == 50
    assert record["machine"]["cpu"] and record["versions"]["numpy"]
    assert json.loads(capsys.readouterr().out)["inputs"] == 50


@pytest.mark.parametrize(
    ("metadata", "accepted"),
    [
        ('{"a":"' + "x" * 1_000_000 + '"}', True),
        ('{"a":"' + "x" * 2_000_000 + '"}', False),
        ('{"a":"' + "," * 30_000 + '"}', True),
        ("{" + ",".join(f'"{i}":""' for i in range(30_000)) + "}", True),
    ],
    ids=["a megabyte", "two megabytes", "commas", "pairs"],
)
def test_both_have_the_same_limits_for_metadata(metadata, accepted, tmp_path):
    for model in range(len(MODELS)):
        file = valid_file(model)
        file.members.append(f'"__metadata__":{metadata}')
        contents = [render(file)]
        assert (native_refusal(model, contents) is None) == accepted
        assert (python_refusal(model, contents, tmp_path) is None) == accepted


def test_both_draw_the_line_at_the_same_byte(tmp_path):
    for model, layout in enumerate(LAYOUTS):
        base = valid_file(model)
        length = int.from_bytes(render(base)[:8], "little")
        for spare in (-1, 0, 1):
            file = valid_file(model)
            file.padding = " " * (header_limit(layout) - length - len(base.padding) + spare)
            contents = [render(file)]
            assert int.from_bytes(contents[0][:8], "little") == header_limit(layout) + spare
            assert (native_refusal(model, contents) is None) == (spare <= 0)
            assert (python_refusal(model, contents, tmp_path) is None) == (spare <= 0)
