"""`mobilemoe bench`: the JSON contract, the tables, the files, the refusals, Ctrl-C."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from .conftest import COMMAND, Run

QUICK = ("-n", "3", "-r", "1", "-t", "1")


@pytest.fixture(scope="module")
def document(run: Run, chat_model: Path) -> dict[str, object]:
    """The document of llama-bench's spellings on a small checkpoint with a tokenizer."""
    arguments = ("-p", "16", "-n", "4", "-d", "0,32", "-t", "1", "-r", "2", "-o", "json")
    done = run("bench", chat_model, *arguments)
    assert done.returncode == 0, done.stderr
    assert "round 2 of 2" in done.stderr
    result: dict[str, object] = json.loads(done.stdout, parse_constant=pytest.fail)
    return result


def test_json_has_the_promised_keys(document) -> None:
    assert set(document) >= {"machine", "model", "ceilings", "peak_rss_mib", "rows"}
    promised = {"kind", "tokens", "depth", "threads", "tok_s", "tok_s_all", "share_of_ceiling"}
    more = {"ttft_ms", "tpot_ms", "bytes_per_token", "unique_experts_per_token"}
    assert len(document["rows"]) == 4
    for row in document["rows"]:
        assert set(row) >= promised | more
        assert len(row["tok_s_all"]) == 2
    peak = {"tokens", "new_tokens", "real_mib", "repeated_mib", "plan_mib"}
    assert set(document["peak_rss"]) == peak
    assert "tokenizer" in document["model"]["prompts"]


def test_the_json_option_is_the_same(run: Run, chat_model: Path, document) -> None:
    done = run("bench", chat_model, "-p", "8", *QUICK, "--no-memory", "--json")
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)) == set(document)


def test_the_table_is_markdown_with_notes(run: Run, chat_model: Path) -> None:
    done = run("bench", chat_model, "-p", "8", "-d", "4", *QUICK)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 4
    assert len({line.count("|") for line in table}) == 1
    assert set(table[1]) == set("| -")
    assert "pp8 @ d4" in table[2]
    assert "tg3 @ d4" in table[3]
    assert any("MiB with real prompts" in line for line in lines)
    assert any(line.startswith("ceilings, 1 thread") for line in lines)


def test_csv_files_and_the_picture(run: Run, chat_model: Path, tmp_path: Path) -> None:
    result, picture = tmp_path / "result.json", tmp_path / "roof.png"
    files = ("--output", result, "--plot", picture)
    options = ("-p", "8", *QUICK, "--no-memory", "-o", "csv", "--vs", chat_model)
    done = run("bench", chat_model, *options, *files)
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [(row["kind"], row["tokens"]) for row in rows] == [("prefill", "8"), ("decode", "3")] * 2
    assert rows[0]["tpot_ms_p99"] == ""
    assert float(rows[1]["tpot_ms_p99"]) > 0
    saved = json.loads(result.read_text())
    assert saved["rows"][0]["tok_s"] == float(rows[0]["tok_s"])
    assert len(saved["versus"]["ratios"]) == 2
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-p", "250", "-d", "7"), "needs a context of 257 tokens; allowed: at most 256"),
        (("-p", "0", "-n", "0"), "nothing to measure"),
        (("-p", "8", "--vs", "no-such-folder"), "no checkpoint folder at no-such-folder"),
    ],
)
def test_refusals(run: Run, chat_model: Path, arguments: tuple[str, ...], message: str) -> None:
    done = run("bench", chat_model, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    error, hint = done.stderr.splitlines()
    assert error.startswith("error: ")
    assert message in error
    assert hint.startswith("hint: ")


def test_a_format_is_no_file(run: Run, chat_model: Path) -> None:
    done = run("bench", chat_model, "--output", "json")
    assert done.returncode == 2
    assert "write -o json" in " ".join(done.stderr.split())


def test_too_many_threads_are_warned_of(run: Run, chat_model: Path) -> None:
    options = ("-p", "4", "-n", "0", "-r", "1", "--no-memory", "-o", "csv")
    done = run("bench", chat_model, *options, "-t", str((os.cpu_count() or 1) + 1))
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("warning: threads is ")


def test_ctrl_c_ends_it_and_its_workers(chat_model: Path) -> None:
    command = [str(COMMAND), "bench", str(chat_model), "-r", "100000", "-p", "4", "-n", "0"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, text=True, start_new_session=True, **pipes)
    assert process.stderr is not None
    for line in process.stderr:
        if "round 3 of" in line:
            break
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    workers = children.read_text().split() if children.exists() else []
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert err.endswith("interrupted\n")
    assert "Traceback" not in err
    for pid in workers:
        assert not Path(f"/proc/{pid}").exists()
