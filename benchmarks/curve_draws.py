"""How far apart equally valid runs of the plain loop drift: the initial weights off by a last bit.

    python benchmarks/curve_draws.py --draw 1 --data runs/corpus --out draw1.json

Rounding that differs (another order of sums, another exponential) moves weights by last bits from
the first step on. This trains the plain loop from weights multiplied by 1 + 2^-23 where a coin
says so; draw 0 is the loop as it is. What such draws come to among themselves is what two
correct implementations may differ by.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch
from plain_training import PlainTrainer

from mobilemoe.atomic import atomic_write
from mobilemoe.data import build_dataset
from mobilemoe.model import MobileMoE
from mobilemoe.recipe import load_recipe
from mobilemoe.train import Settings

RECIPE = Path(__file__).parents[1] / "recipes" / "nano.toml"
EXTRA = 4  # steps by which the schedule is longer, as in benchmarks/train.py
LAST_BIT = 2.0**-23


def perturbed(model: MobileMoE, draw: int) -> MobileMoE:
    """Move half of the weights by a last bit; draw 0 moves none."""
    generator = torch.Generator().manual_seed(draw)
    with torch.no_grad():
        for weight in model.parameters():
            if draw and weight.requires_grad:
                coin = torch.rand(weight.shape, generator=generator) < 0.5
                weight.mul_(1 + LAST_BIT * coin)
    return model


def main() -> None:
    """Train one draw and keep its losses."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draw", type=int, default=1)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data", type=Path, default=Path("runs/corpus"))
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    recipe = load_recipe(RECIPE)
    first = recipe.stage("pretrain")
    tokens = (arguments.steps + EXTRA) * first.tokens_per_step
    stage = replace(first.with_tokens(tokens), capacity_factor=None)
    dataset = build_dataset(arguments.data)
    batches = dataset.mixture(stage.mixture, stage.context, stage.batch_size, arguments.seed).batch
    model = MobileMoE(recipe.model)
    model.init_weights(torch.Generator().manual_seed(arguments.seed))
    plain = PlainTrainer(perturbed(model, arguments.draw), stage, batches, Settings.of(recipe))
    losses = [round(plain.step(), 5) for _ in range(arguments.steps)]
    result = {"draw": arguments.draw, "steps": arguments.steps, "losses": losses}
    atomic_write(arguments.out, json.dumps(result) + "\n")
    print(json.dumps({"draw": arguments.draw, "last": losses[-1]}))


if __name__ == "__main__":
    main()
