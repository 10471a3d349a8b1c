"""The engine's target table: against llama.cpp, against a dense model, and in memory.

    python benchmarks/engine.py WORK                      # every piece but `large`
    python benchmarks/engine.py WORK --pieces decode,memory --rounds 7
    python benchmarks/engine.py WORK --large              # L against llama.cpp as well

Terms. Rounds of two models alternate (A B A B) in one run, each model in a process of its own;
a speed is the median of its rounds, a ratio that of two medians. Prefill appends a prompt,
decode appends single tokens greedily, `@ d4096` after 4096 others. The roof of decode is the
measured read bandwidth over the bytes that a token must read. Prompts are the package's own texts.
Peak memory is the largest resident set of a fresh process that fills a context, mapped weights
included; the plan is what the engine says before it loads: weights, what it copies, KV cache,
buffers, tokenizer, Python.

Models are random weights (`mobilemoe init`) in the folder WORK, made if they are not there, and
kept; the file for llama.cpp too (Q4_0, with the fastest of its flash attention and KV settings for
each row). Each piece replaces its own part of benchmarks/results/engine.json, with machine, date,
instruction set and the raw rounds; other shapes than before start a new file. Prints the table;
the last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mobilemoe import ModelConfig
from mobilemoe.atomic import atomic_write
from mobilemoe.checkpoint import Checkpoint, init_checkpoint, open_checkpoint
from mobilemoe.engine.native import instruction_set
from mobilemoe.profile.benchmark import Plan, run_benchmark
from mobilemoe.profile.llama_peer import gguf_for, require_llama_cpp
from mobilemoe.profile.machine import this_machine
from mobilemoe.profile.measure import measure_memory
from mobilemoe.profile.subjects import LLAMA_CPP, subject_of

RESULT = Path(__file__).parent / "results" / "engine.json"
PIECES = ("decode", "prefill", "dense", "memory", "large")
MIB = 2**20

Results = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """Shapes and sizes; the targets are for the defaults."""

    work: Path
    model: str
    dense: str
    large: str
    prompts: tuple[int, ...]
    generated: int
    depth: int
    threads: int
    rounds: int


@dataclass(frozen=True)
class Target:
    """One line of the table: `value` reads the results of `piece`."""

    piece: str
    name: str
    wanted: float
    at_most: bool
    unit: str
    value: Callable[[Results], float]

    def met(self, measured: float) -> bool:
        """Whether `measured` is on the right side."""
        return measured <= self.wanted if self.at_most else measured >= self.wanted


def say(text: str) -> None:
    """Tell the user on stderr."""
    print(text, file=sys.stderr, flush=True)


def checkpoint_of(job: Job, preset: str) -> Checkpoint:
    """Return the random checkpoint of `preset` in the work folder; make it if it is not there."""
    folder = job.work / preset
    if not (folder / "config.json").is_file():
        say(f"writing {folder}")
        init_checkpoint(folder, ModelConfig.preset(preset), "int4", seed=0)
    return open_checkpoint(folder)


def compare(job: Job, preset: str, versus: str, plan: Plan) -> Results:
    """Return the document of one interleaved comparison, without its memory part."""
    checkpoint = checkpoint_of(job, preset)
    values = asdict(plan) | {"threads": (job.threads,), "rounds": job.rounds, "memory": False}
    if versus == LLAMA_CPP:
        other = {"versus": LLAMA_CPP, "gguf": job.work / f"{preset}.gguf"}
    else:
        other = {"versus": str(checkpoint_of(job, versus).folder)}
    document = run_benchmark(checkpoint.folder, Plan(**(values | other)), say)
    for model in (document["model"], document["versus"]["model"]):
        model["path"] = Path(model["path"]).name  # where the models lie is of no interest
    return document


def decode_piece(job: Job) -> Results:
    """Compare decode with llama.cpp, at depth 0 and deep."""
    plan = Plan(prompts=(), generated=(job.generated,), depths=(0, job.depth))
    return compare(job, job.model, LLAMA_CPP, plan)


def prefill_piece(job: Job) -> Results:
    """Compare prompts with llama.cpp."""
    return compare(job, job.model, LLAMA_CPP, Plan(prompts=job.prompts, generated=()))


def dense_piece(job: Job) -> Results:
    """Compare the mixture with the dense model, both in our engine, at depth 0 and deep."""
    plan = Plan(prompts=job.prompts[:1], generated=(job.generated,), depths=(0, job.depth))
    return compare(job, job.model, job.dense, plan)


def large_piece(job: Job) -> Results:
    """Compare a prompt and decode of the largest model with llama.cpp."""
    plan = Plan(prompts=job.prompts[:1], generated=(job.generated,))
    return compare(job, job.large, LLAMA_CPP, plan)


def memory_piece(job: Job) -> Results:
    """Return the peak memory of both engines with a full context, as long as the depth."""
    checkpoint, context = checkpoint_of(job, job.model), job.depth
    ours = subject_of(checkpoint, context)
    results: Results = {
        "machine": asdict(this_machine())
        | {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "instruction_set": instruction_set(),
        },
        "context": context,
        "ours": asdict(measure_memory(ours, job.threads, context, say)),
    }
    gguf = gguf_for(checkpoint, job.work / f"{job.model}.gguf", say)
    theirs = subject_of(checkpoint, context, gguf=gguf)
    results[LLAMA_CPP] = asdict(measure_memory(theirs, job.threads, context, say))
    return results


RUN = {
    "decode": decode_piece,
    "prefill": prefill_piece,
    "dense": dense_piece,
    "memory": memory_piece,
    "large": large_piece,
}


def ratio(index: int) -> Callable[[Results], float]:
    """Return a reader of the ratio of row `index`."""
    return lambda results: float(results["versus"]["ratios"][index]["ratio"])


def share(index: int) -> Callable[[Results], float]:
    """Return a reader of the share of the ceiling of row `index`."""
    return lambda results: float(results["rows"][index]["share_of_ceiling"])


def kept_at_depth(results: Results) -> float:
    """Return the deep decode speed over that at depth 0."""
    shallow, deep = results["rows"]
    return float(deep["tok_s"] / shallow["tok_s"])


def peak_gb(results: Results) -> float:
    """Return our peak with real prompts in GB (10^9 bytes)."""
    return float(results["ours"]["real_mib"] * MIB / 1e9)


def over_plan(results: Results) -> float:
    """Return our peak with real prompts over what the engine planned before loading."""
    return float(results["ours"]["real_mib"] / results["ours"]["plan_mib"])


def targets(job: Job) -> list[Target]:
    """Return the table's lines in order."""
    S, deep, first = job.model, f"@ d{job.depth}", job.prompts[0]

    def least(piece: str, name: str, wanted: float, value: Callable[[Results], float]) -> Target:
        return Target(piece, name, wanted, False, "x", value)

    return [
        least("decode", f"decode {S} / llama.cpp", 1.6, ratio(0)),
        least("decode", f"decode {S}, share of the read-bandwidth roof", 0.70, share(0)),
        least("decode", f"decode {S} {deep} / llama.cpp", 2.5, ratio(1)),
        least("decode", f"decode {S} {deep} / depth 0", 0.55, kept_at_depth),
        *(
            least("prefill", f"prefill {S} {tokens} / llama.cpp", 2.0, ratio(index))
            for index, tokens in enumerate(job.prompts)
        ),
        least("dense", f"prefill {S} {first} / {job.dense}", 2.9, ratio(0)),
        least("dense", f"decode {S} / {job.dense}", 2.8, ratio(1)),
        least("dense", f"prefill {S} {first} {deep} / {job.dense}", 2.9, ratio(2)),
        least("dense", f"decode {S} {deep} / {job.dense}", 2.8, ratio(3)),
        least("large", f"prefill {job.large} {first} / llama.cpp", 1.6, ratio(0)),
        least("large", f"decode {job.large} / llama.cpp", 1.6, ratio(1)),
        Target("memory", f"peak RSS {S}, {job.depth} context", 0.85, True, " GB", peak_gb),
        Target("memory", f"peak RSS {S} / plan", 1.05, True, "x", over_plan),
    ]


def table(job: Job, results: Results) -> list[dict[str, Any]]:
    """Return each line whose piece has been measured."""
    lines = []
    for target in targets(job):
        if target.piece in results:
            measured = target.value(results[target.piece])
            sign = "<=" if target.at_most else ">="
            wanted = f"{sign} {target.wanted:g}{target.unit}"
            ok = target.met(measured)
            lines.append({"what": target.name, "target": wanted, "measured": measured, "ok": ok})
    return lines


def print_table(lines: Sequence[dict[str, Any]]) -> None:
    """Print the lines for people."""
    width = max(len(line["what"]) for line in lines)
    print(f"| {'':{width}} | target     | measured | ok  |")
    print(f"| {'-' * width} | ---------- | -------- | --- |")
    for line in lines:
        ok = "yes" if line["ok"] else "NO"
        print(
            f"| {line['what']:{width}} | {line['target']:10} | {line['measured']:8.3f} | {ok:3} |"
        )


def arguments_of(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path, help="folder of the models; made and kept")
    parser.add_argument("--pieces", default=",".join(PIECES[:-1]), help="comma list")
    parser.add_argument("--large", action="store_true", help="the piece `large` as well")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULT)
    shapes = parser.add_argument_group("other shapes than those of the targets")
    shapes.add_argument("--model", default="S")
    shapes.add_argument("--dense", default="mobilellm-pro")
    shapes.add_argument("--large-model", default="L")
    shapes.add_argument("--prompts", default="512,2048")
    shapes.add_argument("--generated", type=int, default=128)
    shapes.add_argument("--depth", type=int, default=4096)
    arguments = parser.parse_args(argv)
    arguments.pieces = arguments.pieces.split(",") + ["large"] * arguments.large
    if unknown := sorted(set(arguments.pieces) - set(PIECES)):
        parser.error(f"no piece called {', '.join(unknown)}; allowed: {', '.join(PIECES)}")
    return arguments


def earlier_pieces(path: Path, shapes: dict[str, Any]) -> Results:
    """Return what `path` holds of the same shapes."""
    old: Results = json.loads(path.read_text()) if path.is_file() else {}
    pieces: Results = old.get("pieces", {})
    return pieces if old.get("shapes") == shapes else {}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure the pieces, merge them into the results, print the table and one JSON line."""
    arguments = arguments_of(argv)
    job = Job(
        work=arguments.work,
        model=arguments.model,
        dense=arguments.dense,
        large=arguments.large_model,
        prompts=tuple(map(int, arguments.prompts.split(","))),
        generated=arguments.generated,
        depth=arguments.depth,
        threads=arguments.threads,
        rounds=arguments.rounds,
    )
    if set(arguments.pieces) != {"dense"}:
        require_llama_cpp()
    shapes = {key: value for key, value in asdict(job).items() if key not in ("work", "rounds")}
    shapes["prompts"] = list(job.prompts)  # as JSON gives them back
    results = earlier_pieces(arguments.out, shapes)
    for piece in dict.fromkeys(arguments.pieces):
        say(f"== {piece}")
        results[piece] = RUN[piece](job)
        lines = table(job, results)
        document: Results = {"benchmark": "engine", "shapes": shapes, "table": lines}
        document["pieces"] = results
        atomic_write(arguments.out, json.dumps(document, indent=1, allow_nan=False) + "\n")
    print_table(lines)
    print(json.dumps({"benchmark": "engine", "table": lines}))


if __name__ == "__main__":
    main()
