"""Measure shapes from 1 MB to 0.7 GB with `mobilemoe bench`, to calibrate the device model.

    python benchmarks/device_bench.py make FOLDER
    python benchmarks/device_bench.py run FOLDER SHAPE THREADS [--kv fp16] [--depths 0 1024]
    python benchmarks/device_bench.py list

`run` takes a quarter to one and a half minutes. It appends one compact document to
benchmarks/results/device_bench.json: the bench document without what the device model does not
read. A run during which other programs took more than 5 % of the processors is thrown away.
The model is calibrated on the median of each row over its runs.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mobilemoe.atomic import atomic_write
from mobilemoe.config import ModelConfig

RESULT = Path(__file__).parent / "results/device_bench.json"
MOST_OTHERS = 0.05  # of all processors
BF16, IN_BF16 = "-bf16", ("small", "dense-small", "wide-experts", "middle")
PROMPTS, GENERATED, DEPTHS, ROUNDS = (128, 512), (32,), (0, 1024, 4096), 3


def moe(hidden: int, layers: int, vocabulary: int, heads: int, groups: int) -> ModelConfig:
    """Return a small member of the released family."""
    return replace(
        ModelConfig.preset("nano"),
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=hidden // 2,
        intermediate_size_mlp=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=groups,
        max_position_embeddings=8192,
    )


def shapes() -> Mapping[str, ModelConfig]:
    """Return the measured shapes: four of the family, two dense ones, one of few wide experts."""
    small, middle = moe(256, 8, 8192, 4, 2), moe(512, 13, 32768, 8, 4)
    return {
        "nano": moe(128, 4, 4096, 2, 1),
        "small": small,
        "middle": middle,
        "S": ModelConfig.preset("S"),
        "dense-small": small.dense_twin(),
        "dense-middle": middle.dense_twin(),
        "wide-experts": replace(
            moe(384, 10, 16384, 6, 6),
            intermediate_size=768,
            intermediate_size_mlp=0,
            num_local_experts=16,
            num_experts_per_tok=2,
        ),
    }


def processor_seconds() -> dict[str, float]:
    """Return seconds so far: of the clock, of all programs, of this one, taken by the host."""
    counts = [float(x) for x in Path("/proc/stat").read_text().split("\n")[0].split()[1:]]
    user, nice, system, _, _, irq, softirq, steal = counts[:8]
    second = os.sysconf("SC_CLK_TCK")
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {
        "clock": time.monotonic(),
        "all": (user + nice + system + irq + softirq) / second,
        "own": sum(one.ru_utime + one.ru_stime for one in usage),
        "host": steal / second,
    }


def make(folder: Path) -> None:
    """Write a random checkpoint of every shape."""
    from mobilemoe.checkpoint import init_checkpoint, synthetic_tokenizer_json

    for name, config in shapes().items():
        tokenizer = synthetic_tokenizer_json(config)
        if not (folder / name).exists():
            init_checkpoint(folder / name, config, "int4", 0, tokenizer_json=tokenizer)
        if name in IN_BF16 and not (folder / (name + BF16)).exists():
            init_checkpoint(folder / (name + BF16), config, "bf16", 0, tokenizer_json=tokenizer)


def compact(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the device model reads of a bench document, in its own layout."""
    rows = ("kind", "tokens", "depth", "threads", "tok_s", "tok_s_all", "unique_experts_per_token")
    model = ("name", "config", "weight_format", "activations", "kv_format", "instruction_set")
    machine = ("cpu", "cores", "memory_gb", "os", "date", "instruction_set", "versions")
    return {
        "machine": {key: document["machine"][key] for key in machine},
        "ceilings": document["ceilings"],
        "rounds": document["rounds"],
        "model": {key: document["model"][key] for key in model},
        "rows": [{key: row[key] for key in rows} for row in document["rows"]],
        "versus": None,
    }


def run(folder: Path, shape: str, threads: int, kv: str | None, depths: tuple[int, ...]) -> None:
    """Measure one shape on one thread count and append the document."""
    from mobilemoe.profile.benchmark import Plan, run_benchmark

    plan = Plan(PROMPTS, GENERATED, depths, (threads,), ROUNDS, kv=kv, memory=False)
    before = processor_seconds()
    document = compact(run_benchmark(folder / shape, plan))
    used = {key: value - before[key] for key, value in processor_seconds().items()}
    offered = used["clock"] * (os.cpu_count() or 1)
    others, stolen = (used["all"] - used["own"]) / offered, used["host"] / offered
    if others > MOST_OTHERS:
        raise SystemExit(f"{shape}, {threads} threads: other programs took {others:.0%}")
    document["machine"] |= {"others_share": round(others, 4), "stolen_share": round(stolen, 4)}
    documents = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else []
    lines = [json.dumps(one, allow_nan=False) for one in [*documents, document]]
    atomic_write(RESULT, "[\n" + ",\n".join(lines) + "\n]\n")
    speeds = [f"{row['kind']} {row['depth']}: {row['tok_s']:.1f}" for row in document["rows"]]
    print(
        shape, threads, kv or "int8", f"{others:.1%} others, {stolen:.1%} stolen", "; ".join(speeds)
    )


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=("make", "run", "list"))
    parser.add_argument("folder", type=Path, nargs="?")
    names = [name + suffix for name in shapes() for suffix in ("", BF16)]
    parser.add_argument("shape", nargs="?", choices=names)
    parser.add_argument("threads", type=int, nargs="?")
    parser.add_argument("--kv", default=None)
    parser.add_argument("--depths", type=int, nargs="+", default=DEPTHS)
    arguments = parser.parse_args()
    if arguments.action == "list":
        print("\n".join(shapes()))
    elif arguments.action == "make":
        make(arguments.folder)
    else:
        depths = tuple(arguments.depths)
        run(arguments.folder, arguments.shape, arguments.threads, arguments.kv, depths)


if __name__ == "__main__":
    main()
