"""The verbs on a model of the hub: `owner/name`, fetched once, then from the cache."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from command_line import hub_of

from .conftest import Run

MODEL = "facebook/MobileMoE-S-QAT"


@pytest.fixture(scope="module")
def access(chat_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of somebody who may read the gated model."""
    with hub_of(MODEL, chat_model, tmp_path_factory.mktemp("hub") / "home") as environment:
        yield environment


def test_every_verb_takes_a_hub_id(run: Run, access: dict[str, str], tmp_path: Path) -> None:
    calls = {
        "info": (MODEL,),
        "generate": (MODEL, "--prompt", "def", "--max-new-tokens", "4"),
        "chat": (MODEL, "--max-new-tokens", "4"),
        "tokenize": (MODEL, "Hello"),
        "verify": (MODEL, "--quick"),
        "convert": (MODEL, str(tmp_path / "out"), "--format", "bf16"),
    }
    for verb, arguments in calls.items():
        done = run(verb, *arguments, stdin="Hi\n", **access)
        assert done.returncode == 0, (verb, done.stderr)
        assert done.stdout.strip(), verb


def test_a_fetched_model_opens_without_the_hub(run: Run, access: dict[str, str]) -> None:
    arguments = ("generate", MODEL, "--prompt", "x", "--max-new-tokens", "3", "--json")
    first = run(*arguments, **access)
    assert first.returncode == 0, first.stderr
    unplugged = access | {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}
    again = run(*arguments, **unplugged)
    assert again.returncode == 0, again.stderr
    documents = [json.loads(done.stdout) for done in (first, again)]
    starts = [document.pop("start") for document in documents]  # with the memory of its process
    assert documents[1] == documents[0]
    assert starts[1]["fingerprint"] == starts[0]["fingerprint"]


def test_verify_compares_the_weights_with_what_the_hub_says(
    run: Run, access: dict[str, str]
) -> None:
    assert run("generate", MODEL, "--prompt", "x", "--max-new-tokens", "1", **access).stdout
    done = run("verify", MODEL, "--quick", "--json", **access)
    layout = {check["name"]: check for check in json.loads(done.stdout)["sections"][0]["checks"]}
    weights = layout["model.safetensors"]
    assert weights["status"] == "pass", weights
    (blob,) = Path(access["HF_HOME"]).glob("**/blobs/" + "[0-9a-f]" * 64)
    blob.chmod(0o644)
    raw = bytearray(blob.read_bytes())
    raw[-1] ^= 1
    blob.write_bytes(raw)
    done = run("verify", MODEL, "--quick", "--json", **access)
    raw[-1] ^= 1
    blob.write_bytes(raw)
    assert done.returncode == 1
    assert json.loads(done.stdout)["first_failure"].startswith("Layout: model.safetensors")


def test_without_a_token_the_message_says_what_to_do(
    run: Run, access: dict[str, str], tmp_path: Path
) -> None:
    nobody = access | {"HF_TOKEN": "", "HF_HOME": str(tmp_path)}
    done = run("generate", MODEL, "--prompt", "x", **nobody)
    assert (done.returncode, done.stdout) == (1, "")
    assert "is gated" in done.stderr
    assert f"https://huggingface.co/{MODEL}" in done.stderr
    assert "HF_TOKEN" in done.stderr.splitlines()[-1]


def test_verify_takes_a_source_of_the_hub(run: Run, access: dict[str, str], tmp_path: Path) -> None:
    """The error is about its weights, which shows that it was fetched and read."""
    done = run("verify", MODEL, "--source", MODEL, "--quick", **access)
    assert (done.returncode, done.stdout) == (1, "")
    assert "the source holds int4 weights; allowed: bf16" in done.stderr


def test_a_revision_that_is_not_there(run: Run, access: dict[str, str]) -> None:
    done = run("info", f"{MODEL}@v9", **access)
    assert done.returncode == 1
    assert "no revision 'v9'" in done.stderr


def test_load_takes_a_hub_id(access: dict[str, str]) -> None:
    code = (
        "import sys, mobilemoe\n"
        f"model = mobilemoe.load({MODEL!r}, threads=1, revision='main')\n"
        "print(model.logits([1, 2]).shape, 'torch' in sys.modules, 'transformers' in sys.modules)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=access, capture_output=True, text=True, check=False)
    assert done.stdout == "(2, 288) False False\n", done.stderr


def test_a_revision_of_a_folder_is_refused(chat_model: Path) -> None:
    import mobilemoe

    with pytest.raises(mobilemoe.MobileMoEError, match="revision is 'main'"):
        mobilemoe.load(chat_model, revision="main")
