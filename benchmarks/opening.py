"""Opening a checkpoint: seconds to the first token, and memory beyond the mapped pages.

    python benchmarks/opening.py --rounds 7

Terms. A round is a fresh process. `import_ms` loads the package; `open_ms` is `mobilemoe.load`;
`first_token_ms` is a prompt of 16 token ids to the logits after it; `ready_ms` is open + first
token: what the target of 500 ms is about. `anonymous_mib` is everything that the process holds
and no file backs (RssAnon at the end: interpreter, numpy, session, scratch), `mapped_mib` the
touched pages of files (RssFile); the target of 60 MB is about the first. `text_ms` is the same
work from a text prompt, with a tokenizer of the released size (128,256 entries, made up here)
beside the weights: reading that JSON is the tokenizers library's work, so it stands apart.

The weights are random (`mobilemoe init --preset S`), read once before the first round: a warm
page cache. The result goes to benchmarks/results/opening.json; the last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from mobilemoe import ModelConfig
from mobilemoe.checkpoint import init_checkpoint
from mobilemoe.profile.machine import this_machine, versions

RESULT = Path(__file__).parent / "results" / "opening.json"
TARGET_READY_MS, TARGET_ANONYMOUS_MB = 500, 60

ROUND = """
import json, sys, time
from pathlib import Path

started = time.perf_counter()
import mobilemoe
from mobilemoe.engine import load  # what `mobilemoe.load` imports when it is called
imported = time.perf_counter()
model = mobilemoe.load(sys.argv[1])
opened = time.perf_counter()
if sys.argv[2] == "ids":
    model.session().append(list(range(100, 116)))
else:
    next(iter(model.generate("The quick brown fox jumps over the lazy dog", max_new_tokens=1)))
ended = time.perf_counter()
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(json.dumps({
    "import_ms": 1e3 * (imported - started),
    "open_ms": 1e3 * (opened - imported),
    "first_token_ms": 1e3 * (ended - opened),
    "ready_ms": 1e3 * (ended - imported),
    "anonymous_mib": int(status["RssAnon"].split()[0]) / 1024,
    "mapped_mib": int(status["RssFile"].split()[0]) / 1024,
    "threads": model.threads,
    "instruction_set": model.instruction_set,
}))
"""


def full_size_tokenizer(config: ModelConfig, seed: int) -> str:
    """Return a byte-level tokenizer.json with as many entries and merges as Llama 3 has."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    generator = random.Random(seed)
    tokens = sorted(pre_tokenizers.ByteLevel.alphabet())
    known, merges = set(tokens), []
    while len(tokens) < 128_000:
        pair = generator.choice(tokens), generator.choice(tokens[:5000])
        joined = "".join(pair)
        if joined not in known and len(joined) < 16:
            known.add(joined)
            tokens.append(joined)
            merges.append(pair)
    special = ["<|begin_of_text|>", *(f"<|reserved_{i}|>" for i in range(255))]
    vocabulary = {token: index for index, token in enumerate([*tokens, *special])}
    assert len(vocabulary) == config.vocab_size
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    return tokenizer.to_str()


def measure(folder: Path, prompt: str, rounds: int) -> list[dict[str, float]]:
    """Return what each fresh process reports."""
    command = [sys.executable, "-c", ROUND, str(folder), prompt]
    results = []
    for _ in range(rounds):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        results.append(json.loads(done.stdout))
        print(f"{prompt}: {done.stdout.strip()}", file=sys.stderr)
    return results


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Return the median of every number."""
    numbers = [key for key, value in rounds[0].items() if isinstance(value, float)]
    return {key: round(statistics.median(r[key] for r in rounds), 2) for key in numbers}


def main() -> None:
    """Make S, measure, write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="S")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    config = ModelConfig.preset(arguments.preset)
    with tempfile.TemporaryDirectory() as folder:
        written = init_checkpoint(
            Path(folder) / arguments.preset,
            config,
            "int4",
            seed=0,
            tokenizer_json=full_size_tokenizer(config, seed=0),
        )
        for path in written.shards:
            path.read_bytes()
        ids = measure(written.folder, "ids", arguments.rounds)
        text = measure(written.folder, "text", arguments.rounds)
    middle = medians(ids)
    anonymous_mb = middle["anonymous_mib"] * 1.048576
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": asdict(this_machine()),
        "versions": versions(("mobilemoe", "numpy", "tokenizers")),
        "model": f"{arguments.preset}, INT4, random weights, warm page cache",
        "threads": ids[0]["threads"],
        "instruction_set": ids[0]["instruction_set"],
        "ids": {"median": middle, "rounds": ids},
        "text": {"median": medians(text), "rounds": text},
        "targets": {
            "ready_ms": [middle["ready_ms"], TARGET_READY_MS],
            "anonymous_mb": [round(anonymous_mb, 1), TARGET_ANONYMOUS_MB],
            "met": middle["ready_ms"] <= TARGET_READY_MS and anonymous_mb <= TARGET_ANONYMOUS_MB,
        },
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({"opening": middle, "text": medians(text), "targets": result["targets"]}))


if __name__ == "__main__":
    main()
