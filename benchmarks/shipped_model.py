"""What the model that ships can and cannot do: held-out loss and arithmetic, on the engine.

    python benchmarks/shipped_model.py --out benchmarks/results/shipped_model.json

Scores held-out text of the corpus that the recipe `shipped` trains on, with the package's own
INT4 file in the engine's int8 mode, then asks held-out problems (their numbers were never trained
on) and compares the number after the last "Answer:" with the right one. Greedy. Ends with one
JSON line.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mobilemoe
from mobilemoe.checkpoint import ChatFormat
from mobilemoe.data import CorpusOptions, build_dataset, is_held_out, read_corpus
from mobilemoe.engine import Model
from mobilemoe.evaluate.engine_loss import engine_heldout_loss
from mobilemoe.profile.machine import this_machine, versions
from mobilemoe.recipe import load_recipe

CONTEXT, ROWS, TOKENS = 512, 8, 24_576
PROBLEMS = 400
NEW_TOKENS = 160
ANSWER = re.compile(r"Answer:\s*(-?\d+)")


def options() -> CorpusOptions:
    """Return the corpus of the recipe."""
    sources = load_recipe("shipped").sources
    generated = {name: source.generate for name, source in sources.items() if source.generate}
    return CorpusOptions(math_documents=generated["math"], math_conversations=generated["instruct"])


def losses(model: Model, corpus: CorpusOptions) -> dict[str, float]:
    """Return nats per token by domain."""
    dataset = build_dataset(
        None, corpus.seed, corpus.math_documents, math_conversations=corpus.math_conversations
    )
    return {
        domain: engine_heldout_loss(
            model, dataset.heldout_batches(domain, CONTEXT, ROWS, TOKENS)
        ).mean
        for domain in ("code", "knowledge", "math", "instruct")
    }


def answer(model: Model, chat: ChatFormat, question: str) -> str:
    """Return the model's greedy answer."""
    ids = chat.encode(model.tokenizer, [{"role": "user", "content": question}])
    return "".join(token.text for token in model.generate(ids, NEW_TOKENS))


def last_number(text: str) -> int | None:
    """Return the number after the last "Answer:", if there is one."""
    found = ANSWER.findall(text)
    return int(found[-1]) if found else None


def problems(model: Model, corpus: CorpusOptions) -> dict[str, dict[str, int]]:
    """Return asked and right by kind of held-out problem."""
    chat = ChatFormat.from_folder(model.folder)
    talks = [
        talk
        for talk in read_corpus(corpus).conversations
        if talk.domain == "math" and is_held_out(talk.unit)
    ]
    counts: dict[str, dict[str, int]] = defaultdict(lambda: {"asked": 0, "right": 0})
    for talk in talks[:: max(1, len(talks) // PROBLEMS)]:
        right = last_number(talk.assistant)
        if right is None:
            continue
        word = talk.name.split(" ")[0]
        kind = word if word.isalpha() else "sums of text"
        counts[kind]["asked"] += 1
        counts[kind]["right"] += last_number(answer(model, chat, talk.user)) == right
    return dict(counts)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    model, corpus = mobilemoe.load(), options()
    kinds = problems(model, corpus)
    result: dict[str, Any] = {
        "benchmark": "shipped_model",
        "machine": asdict(this_machine()),
        "versions": versions(("mobilemoe", "numpy", "tokenizers")),
        "heldout": losses(model, corpus),
        "problems": kinds,
        "asked": sum(kind["asked"] for kind in kinds.values()),
        "right": sum(kind["right"] for kind in kinds.values()),
    }
    text = json.dumps(result)
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
