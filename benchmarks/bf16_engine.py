"""What BF16 weights cost on the engine: speed against INT4, and memory beyond the mapped file.

    python benchmarks/bf16_engine.py --preset nano --rounds 5 --out result.json

Writes one random model in both formats and runs BF16, INT4 exact (fp32 activations) and INT4
int8 in turns (A B C A B C), after a warm-up each. TTFT runs from the prompt to the first token;
prefill tok/s is prompt length over TTFT; decode tok/s counts the tokens after the first. Prompts
are random ids: routing spreads over all experts. Loading is not timed. Memory is what the process
owns (RssAnon) and what it has mapped, grown from before loading the BF16 model to after its prompt.
Ends with one JSON line; with --out that line goes to a file, too. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from mobilemoe import ModelConfig, engine
from mobilemoe.checkpoint import init_checkpoint
from mobilemoe.profile.machine import this_machine, versions
from mobilemoe.profile.worker import run_round
from mobilemoe.weights import WeightFormat

MODES: dict[str, tuple[WeightFormat, engine.Activations]] = {
    "bf16": ("bf16", "fp32"),
    "int4-exact": ("int4", "fp32"),
    "int4-int8": ("int4", "int8"),
}


def memory_mib() -> dict[str, float]:
    """Return what this process owns and what it has mapped (files, or files in memory), in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    mib = {name: int(fields[name].split()[0]) / 1024 for name in fields if name.startswith("Rss")}
    return {"own_mib": mib["RssAnon"], "mapped_mib": mib["RssFile"] + mib["RssShmem"]}


def memory_of(folder: Path, prompt_ids: list[int], arguments: argparse.Namespace) -> dict[str, Any]:
    """Load the model and run it once; return the memory that this took, in MiB."""
    before = memory_mib()
    session = engine.load(folder, threads=arguments.threads).session()  # keeps the model alive
    session.append(prompt_ids)
    grown = {name: round(value - before[name], 2) for name, value in memory_mib().items()}
    file_mib = (folder / "model.safetensors").stat().st_size / 2**20
    return {"file_mib": round(file_mib, 2)} | grown


def measure(folder: Path, prompt_ids: list[int], arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the medians of every mode, rounds interleaved."""
    models = {
        name: engine.load(folder / weight_format, arguments.threads, activations=activations)
        for name, (weight_format, activations) in MODES.items()
    }
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in models}
    for index in range(arguments.rounds + 1):
        for name, model in models.items():
            result = run_round(model, prompt_ids, arguments.new_tokens)
            if index > 0:  # the first one warms up
                rounds[name].append(result)
        print(f"\rround {index}/{arguments.rounds}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return {
        name: {
            metric: round(median(result[metric] for result in results), 1)
            for metric in ("ttft_ms", "prefill_tok_s", "decode_tok_s")
        }
        for name, results in rounds.items()
    }


def main() -> None:
    """Print a table on stderr and the JSON line on stdout."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="nano")
    parser.add_argument("--prompt-tokens", type=int, default=256)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    load_average = os.getloadavg()[0]  # the state on entry
    config = ModelConfig.preset(arguments.preset)
    prompt_ids = np.random.default_rng(1).integers(0, config.vocab_size, arguments.prompt_tokens)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for weight_format in ("bf16", "int4"):
            init_checkpoint(folder / weight_format, config, weight_format, seed=0)
        memory = memory_of(folder / "bf16", prompt_ids.tolist(), arguments)
        speed = measure(folder, prompt_ids.tolist(), arguments)
    for mode, values in speed.items():
        print(mode, values, file=sys.stderr)
    line = json.dumps(
        {
            "benchmark": "bf16_engine",
            "machine": asdict(this_machine()) | {"load_average": round(load_average, 2)},
            "versions": versions(("mobilemoe", "numpy")),
            "instruction_set": engine.native.instruction_set(),
            "preset": arguments.preset,
            "threads": arguments.threads,
            "prompt_tokens": arguments.prompt_tokens,
            "new_tokens": arguments.new_tokens,
            "rounds": arguments.rounds,
            "speed": speed,
            "bf16_over_int4_exact": {
                metric: round(speed["bf16"][metric] / speed["int4-exact"][metric], 3)
                for metric in ("prefill_tok_s", "decode_tok_s")
            },
            "bf16_memory": memory,
        }
    )
    print(line)
    if arguments.out:
        arguments.out.write_text(line + "\n")


if __name__ == "__main__":
    main()
