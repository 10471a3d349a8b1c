"""Hold the two readers of model files against each other on mutated files.

    python tools/fuzz_readers.py --inputs 5000000 --output benchmarks/results/fuzz_readers.json

The Python reader (`mobilemoe.checkpoint`) and the native one must both accept a file or both
refuse it, each with its own one error type; `model_file_mutations` makes the files. The same seed
gives the same inputs. What only one reader accepts, and any other exception, is a finding: it is
printed, and the status is 1.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from model_file_mutations import LAYOUTS, MODELS, mutated

from mobilemoe.checkpoint.tensor_file import open_tensors
from mobilemoe.engine._native import ModelFileError, testing
from mobilemoe.errors import CheckpointError
from mobilemoe.profile.machine import this_machine, versions

NATIVE_CONFIGS = tuple(asdict(config) for config, _ in MODELS)
MAX_FINDINGS = 10


def native_refusal(model: int, contents: list[bytes]) -> str | None:
    """Return what the native reader says; None if it accepts."""
    try:
        testing.read_model(contents, NATIVE_CONFIGS[model], MODELS[model][1])
    except ModelFileError as error:
        return str(error)
    return None


def python_refusal(model: int, contents: list[bytes], folder: Path) -> str | None:
    """Return what the Python reader says; None if it accepts."""
    paths = [folder / f"{index}.safetensors" for index in range(len(contents))]
    for path in folder.iterdir():
        path.unlink()
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    try:
        open_tensors(paths, LAYOUTS[model])
    except CheckpointError as error:
        return error.message
    return None


class DisagreementError(AssertionError):
    """One reader accepts what the other refuses."""


def compare(rng: random.Random, folder: Path) -> tuple[str | None, str | None]:
    """Let both readers read one mutated case, in `folder`; return their refusals.

    Raises:
        DisagreementError: if only one refuses.
    """
    model, contents = mutated(rng)
    native, python = native_refusal(model, contents), python_refusal(model, contents, folder)
    if (native is None) != (python is None):
        raise DisagreementError(f"model {model}; native: {native}; python: {python}")
    return native, python


def kind_of(message: str | None, folder: Path) -> str:
    """Return what a refusal says, without names and numbers."""
    if message is None:
        return "accepted"
    message = message.split("\n")[0].replace(str(folder), "")
    return re.sub(r"model\.[\w.]+|[\d.]+|'[^']*'|\[.*?\]", "*", message)[:60]


def run(inputs: int, seed: int, folder: Path) -> dict[str, Any]:
    """Compare the readers on `inputs` cases, or until Ctrl-C, and return the outcome in numbers."""
    rng, kinds, findings = random.Random(seed), Counter[str](), []
    started = time.monotonic()
    for _ in range(inputs):
        try:
            _, python = compare(rng, folder)
            kinds[kind_of(python, folder)] += 1
        except KeyboardInterrupt:
            break
        except Exception as error:  # of whatever kind: that is what this looks for
            kept = Path(shutil.copytree(folder, tempfile.mkdtemp(), dirs_exist_ok=True))
            findings.append(f"{kept}: {type(error).__name__}: {error}")
            if len(findings) == MAX_FINDINGS:
                break
    seconds = time.monotonic() - started
    done = sum(kinds.values()) + len(findings)
    return {
        "inputs": done,
        "seed": seed,
        "seconds": round(seconds, 1),
        "inputs_per_second": round(done / seconds),
        "accepted_by_both": kinds.pop("accepted", 0),
        "refused_by_both": sum(kinds.values()),
        "findings": findings,
        "refusals": dict(kinds.most_common(40)),
    }


def main() -> int:
    """Run, record and report; the status is 1 for a finding."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--inputs", type=int, default=100_000, help="files to read (100000)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed, the same files")
    parser.add_argument("--output", type=Path, help="also record the run in this file")
    arguments = parser.parse_args()
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    try:
        result = run(arguments.inputs, arguments.seed, folder)
    finally:
        shutil.rmtree(folder)
    if arguments.output:
        now = datetime.now(UTC).strftime("%Y-%m-%d")
        record = {
            "date": now,
            "machine": asdict(this_machine()),
            "versions": versions(("mobilemoe", "numpy")),
        } | result
        arguments.output.write_text(json.dumps(record, indent=1) + "\n")
    print(*result["findings"], sep="\n\n", file=sys.stderr)
    print(json.dumps({name: value for name, value in result.items() if name != "refusals"}))
    return 1 if result["findings"] else 0


if __name__ == "__main__":
    sys.exit(main())
