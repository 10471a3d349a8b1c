"""The process behind `bench.Worker`: loads one model, answers JSON lines with JSON lines."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from mobilemoe import engine
from mobilemoe.profile.memory import peak_rss_mib


def run_round(model: engine.Model, prompt_ids: list[int], new_tokens: int) -> dict[str, Any]:
    """Generate greedily once and time the first token apart from the others.

    The end-of-turn ids must not end the round early, so tokens are drawn until `new_tokens`.
    """
    session = model.session()
    started = time.perf_counter()
    logits_V = session.append(prompt_ids)
    first = time.perf_counter()
    for _ in range(new_tokens - 1):
        logits_V = session.append([int(logits_V.argmax())])
    ended = time.perf_counter()
    return {
        "ttft_ms": 1e3 * (first - started),
        "prefill_tok_s": len(prompt_ids) / (first - started),
        "decode_tok_s": (new_tokens - 1) / (ended - first),
    }


def main() -> None:
    """Serve until standard input ends: a workload first, then "round" or "memory"."""
    workload = json.loads(sys.stdin.readline())
    model = engine.load(sys.argv[1], threads=workload["threads"], context=workload["context"])
    _answer({"threads": model.threads, "instruction_set": model.instruction_set})
    for line in sys.stdin:
        if json.loads(line) == "memory":
            _answer({"peak_rss_mib": peak_rss_mib()})
        else:
            _answer(run_round(model, workload["prompt_ids"], workload["new_tokens"]))


def _answer(values: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
