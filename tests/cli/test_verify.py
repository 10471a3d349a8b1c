"""`mobilemoe verify`: the receipt in words and as JSON, and its exit status."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from mobilemoe.cli.verify import MAX_TOKENS
from mobilemoe.verify import run as run_room

from .conftest import Run

DATA = Path(__file__).parents[1] / "data"


def test_the_help_states_the_same_limit_as_the_check() -> None:
    assert MAX_TOKENS == run_room.MAX_TOKENS


def test_the_receipt_reads_from_top_to_verdict(run: Run) -> None:
    done = run("verify", DATA / "tiny-int4", "--tokens", "8", COLUMNS="100")
    assert done.returncode == 0, done.stdout + done.stderr
    titles = ("Layout", "Values", "Tokenizer and chat", "Parity of each tensor", "Parity of whole")
    places = [done.stdout.index(f"\n{title}" if title != "Layout" else title) for title in titles]
    assert places == sorted(places)
    assert "803,656 bytes of tensors, as planned" in done.stdout
    assert "torch fp32: needs --source BF16_PATH" in done.stdout
    assert done.stdout.splitlines()[-1] == "PASSED: 10 checks, 4 skipped"
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_json_is_one_document(run: Run) -> None:
    done = run("verify", DATA / "tiny-bf16", "--tokens", "8", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["passed"] is True
    assert document["parity"]["columns"]["engine int8"] == "not for BF16 weights"


def test_a_failure_is_status_1_and_named_last(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(DATA / "tiny-int4", folder)
    with (folder / "model.safetensors").open("ab") as file:
        file.write(b"\0")
    done = run("verify", folder)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].startswith("FAILED: Layout: tensors: ")
    assert "hint: " in done.stdout.split("Values")[0]
    done = run("verify", folder, "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["first_failure"].startswith("Layout: tensors: ")


def test_text_is_checked_where_there_is_some(run: Run, chat_model: Path, base_model: Path) -> None:
    done = run("verify", chat_model, "--tokens", "12", "--json")
    assert done.returncode == 0, done.stdout
    document = json.loads(done.stdout)
    text = {check["name"]: check["status"] for check in document["sections"][2]["checks"]}
    released = {"ids of the special tokens", "ids of 'Hello, MobileMoE!'"}  # not this vocabulary
    assert {name for name, status in text.items() if status == "skip"} == released
    assert set(text.values()) == {"pass", "skip"}
    assert document["parity"]["prompt"] == "12 tokens of knowledge, code, mathematics and chat"
    done = run("verify", base_model, "--quick", "--json")
    text = {c["name"]: c for c in json.loads(done.stdout)["sections"][2]["checks"]}
    assert (text["chat"]["status"], text["chat"]["detail"]) == ("skip", "no template: a Base model")


def test_a_mistyped_folder_is_no_request(run: Run, tmp_path: Path) -> None:
    """`runs/none` could be a model of the hub, but `runs` is a folder here."""
    (tmp_path / "runs").mkdir()
    nobody = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "hf")}
    done = run("verify", "runs/none", cwd=tmp_path, **nobody)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: no checkpoint folder at runs/none\nhint: runs/ is a ")


def test_a_source_that_is_none_is_an_error(run: Run) -> None:
    done = run("verify", DATA / "tiny-int4", "--source", DATA / "tiny-int4")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert "the source holds int4 weights" in done.stderr
