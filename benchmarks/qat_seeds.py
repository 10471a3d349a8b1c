"""Does quantisation-aware training help beyond the noise of one run? Repeat it over seeds.

    python benchmarks/qat_seeds.py runs/demo --seeds 3 --tokens 250000

From the instruction-tuned weights of a demo run, every seed trains twice on the same batches: with
INT4 rounding (QAT) and without (the control). Both are exported and scored from their files on the
same held-out tokens: the control as BF16 and rounded afterwards (PTQ), QAT as INT4. The gap is
nats per token against the control's BF16, mean over the domains. Ends with one JSON line; with
--out that line goes to a file, too.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mobilemoe.checkpoint import open_checkpoint, write_checkpoint
from mobilemoe.config import ModelConfig
from mobilemoe.data import Dataset, build_dataset
from mobilemoe.demo.export import reader
from mobilemoe.demo.measure import CONTEXT
from mobilemoe.demo.stages import demo_stages
from mobilemoe.demo.training import score
from mobilemoe.evaluate.heldout import HeldoutLoss, mean_over_domains
from mobilemoe.model import MobileMoE
from mobilemoe.profile.machine import this_machine, versions
from mobilemoe.recipe import Stage
from mobilemoe.train import StepMetrics, Trainer, load_weights
from mobilemoe.weights import WeightFormat

HELDOUT_TOKENS = 24_576


def train(stage: Stage, run: Path, config: ModelConfig, dataset: Dataset, seed: int) -> MobileMoE:
    """Train `stage` from the run's instruction-tuned weights; return the float model."""
    model = load_weights(MobileMoE(config), run / "stages" / "sft")
    mixture = dataset.mixture(stage.mixture, stage.context, stage.batch_size, seed)
    for event in Trainer(model, stage, mixture.batch).run():
        if isinstance(event, StepMetrics) and (event.step % 20 == 0 or event.step == stage.steps):
            progress = f"seed {seed} {stage.name} {event.step}/{stage.steps}"
            print(f"\r{progress} loss {event.loss:.3f}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return model


def exported_loss(
    model: MobileMoE, weight_format: WeightFormat, dataset: Dataset
) -> Mapping[str, HeldoutLoss]:
    """Write the model, read the file back and score what the file says."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        written = write_checkpoint(path, model.config, weight_format, reader(model))
        return score(MobileMoE.from_pretrained(written), dataset, CONTEXT, HELDOUT_TOKENS)


def one_seed(run: Path, dataset: Dataset, tokens: int, seed: int) -> dict[str, float]:
    """Return mean held-out losses of the three forms, and the gaps of PTQ and QAT."""
    config = open_checkpoint(run / "model").config
    stages = {name: stage.with_tokens(tokens) for name, stage in demo_stages().items()}
    plain = train(stages["control"], run, config, dataset, seed)
    bf16 = mean_over_domains(exported_loss(plain, "bf16", dataset))
    ptq = mean_over_domains(exported_loss(plain, "int4", dataset))
    rounded = train(stages["qat"], run, config, dataset, seed)
    qat_loss = mean_over_domains(exported_loss(rounded, "int4", dataset))
    return {
        "seed": seed,
        "control_bf16": bf16,
        "control_ptq": ptq,
        "qat": qat_loss,
        "ptq_gap": ptq - bf16,
        "qat_gap": qat_loss - bf16,
    }


def main() -> None:
    """Run all seeds and print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a finished `mobilemoe demo`")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=250_000)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    started = time.time()
    dataset = build_dataset(arguments.run / "data")
    rows = [one_seed(arguments.run, dataset, arguments.tokens, s) for s in range(arguments.seeds)]
    print("seed  control BF16  control PTQ      QAT  PTQ gap  QAT gap   (nats per token)")
    for row in rows:
        print(
            f"{row['seed']:4}  {row['control_bf16']:12.4f} {row['control_ptq']:12.4f} "
            f"{row['qat']:8.4f} {row['ptq_gap']:+8.4f} {row['qat_gap']:+8.4f}"
        )
    result: dict[str, Any] = {
        "benchmark": "qat_seeds",
        "machine": asdict(this_machine()),
        "versions": versions(("mobilemoe", "torch")),
        "date": time.strftime("%Y-%m-%d"),
        "seconds": time.time() - started,
        "tokens": arguments.tokens,
        "lr": demo_stages()["qat"].lr,
        "corpus_sha256": dataset.sha256,
        "rows": rows,
    }
    line = json.dumps(result)
    if arguments.out:
        arguments.out.write_text(line + "\n")
    print(line)


if __name__ == "__main__":
    main()
