"""A fake-quantised model in torch and the engine on its file, over a whole forward pass.

    python benchmarks/qat_logits.py INT4_FOLDER --out benchmarks/results/qat_logits.json

Measures how far the logits of the two are apart, in the exact mode and in int8, and holds it
against the bound that `mobilemoe.verify.spread` derives. Both are given the engine's choice of
experts: a choice may differ where two scores nearly tie, and then moves the logits by what no
rounding does. What torch would have chosen is counted. INT4_FOLDER is the shipped model, if not
given.

T tokens, D hidden, E experts, K top-k, L layers that route, V vocabulary.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from mobilemoe import engine
from mobilemoe.atomic import atomic_write
from mobilemoe.checkpoint import open_checkpoint
from mobilemoe.engine.loading import default_kv
from mobilemoe.model import MobileMoE
from mobilemoe.model.moe import MoE, Routing, combine, dispatch, gather, route
from mobilemoe.profile.machine import this_machine, versions
from mobilemoe.quant.int8_mode import round_activations
from mobilemoe.verify.files import Weights
from mobilemoe.verify.pairs import SAFETY
from mobilemoe.verify.spread import spread
from mobilemoe.weights import QUANTIZED_KINDS

# How many times the expected difference of all tokens together is allowed: what is measured comes
# out within a tenth of it; one token, which a single flip may move, is allowed SAFETY times.
SUM_SAFETY = 2.0
TOKENS = 64
SHIPPED = Path(engine.__file__).parents[1] / "shipped"

Floats = npt.NDArray[Any]


class Stored(nn.Module):
    """Stands where fake quantisation rounds: the weights are the file's, and so are the scales."""

    def __init__(self, scales: Tensor) -> None:
        super().__init__()
        self.scales = scales

    def forward(self, weight: Tensor) -> Tensor:
        """Return `weight`."""
        return weight


def int8_model(folder: Path) -> MobileMoE:
    """Return the model of an INT4 file with int8 activations; nothing is rounded twice."""
    model, weights = MobileMoE.from_pretrained(folder), Weights(open_checkpoint(folder))
    for weight in weights:
        if weight.kind in QUANTIZED_KINDS:
            path, _, name = weight.name.rpartition(".")
            scales = torch.from_numpy(weights.piece(weight.name).scales.astype(np.float32))
            stored = Stored(scales.view(*weight.shape[:-1], -1))
            parametrize.register_parametrization(model.get_submodule(path), name, stored)
    round_activations(model, tuple(weights))
    return model.eval()


class Given:
    """The forward pass of a MoE whose choices are given; `trace` keeps the free ones."""

    def __init__(self, moe: MoE, topk_ids_TK: Floats, trace: list[Routing]) -> None:
        self.moe, self.trace = moe, trace
        self.topk_ids_TK = torch.from_numpy(topk_ids_TK.astype(np.int64))

    def __call__(
        self, x_BTD: Tensor, capacity_factor: float | None = None, trace: object = None
    ) -> Tensor:
        """Return [1, T, D]."""
        moe, h_TD, K = self.moe, x_BTD[0], self.topk_ids_TK.shape[1]
        free = route(h_TD, moe.router.weight, moe.expert_bias, moe.config)
        self.trace.append(free)
        chosen_TK = free.router_logits_TE.sigmoid().gather(1, self.topk_ids_TK)
        weights_TK = chosen_TK / chosen_TK.sum(-1, keepdim=True) * moe.config.routed_scaling_factor
        counts_E = self.topk_ids_TK.flatten().bincount(minlength=moe.config.num_local_experts)
        plan = dispatch(
            Routing(self.topk_ids_TK, weights_TK, free.router_logits_TE, counts_E), None
        )
        y_ND = moe.experts(gather(h_TD, plan.choices_N, K), plan.counts)
        y_TD = combine(y_ND, plan.choices_N, weights_TK)
        shared = moe.shared_expert
        return (y_TD if shared is None else y_TD + shared(h_TD))[None]


@torch.no_grad()
def torch_logits(
    model: MobileMoE, ids: Sequence[int], topk_ids_LTK: Floats
) -> tuple[Floats, list[Routing]]:
    """Return logits [T, V] with the choices given, and what was chosen freely, per layer."""
    trace: list[Routing] = []
    moes: list[Any] = [module for module in model.modules() if isinstance(module, MoE)]
    for moe, ids_TK in zip(moes, topk_ids_LTK, strict=True):
        moe.forward = Given(moe, ids_TK, trace)
    try:
        logits_TV: Floats = model(torch.tensor([ids]))[0].numpy()
    finally:
        for moe in moes:
            del moe.forward
    return logits_TV, trace


@dataclass(frozen=True)
class Logits:
    """What both sides came to, and what they may differ by. Norms are over the vocabulary.

    `differ_LT` is where torch would have chosen others, `excess_LT` by how many expected
    differences of a score these beat the chosen ones.
    """

    error_T: Floats
    size_T: Floats
    expected_T: Floats
    worst_T: Floats
    differ_LT: Floats
    excess_LT: Floats

    @property
    def total_ratio(self) -> float:
        """The error of all tokens over the expected one."""
        return float(np.linalg.norm(self.error_T) / np.linalg.norm(self.expected_T))

    @property
    def worst_ratio(self) -> float:
        """The largest error of a token over its bound without the factor."""
        return float((self.error_T / self.worst_T).max())

    @property
    def agrees(self) -> bool:
        """Whether every bound holds: the sum's, each token's, and each other choice a near tie."""
        ties = (self.excess_LT[self.differ_LT] <= SAFETY).all()
        return bool(self.total_ratio <= SUM_SAFETY and self.worst_ratio <= SAFETY and ties)

    def figures(self) -> dict[str, float]:
        """Return what a page of results shows, in shares of the logits' norm."""
        size = np.linalg.norm(self.size_T)
        return {
            "measured": float(np.linalg.norm(self.error_T) / size),
            "expected": float(np.linalg.norm(self.expected_T) / size),
            "measured_over_expected": self.total_ratio,
            "worst_token_over_its_bound": self.worst_ratio / SAFETY,
            "tokens_that_would_choose_other_experts": float(self.differ_LT.any(0).mean()),
            "largest_margin_of_another_choice_over_allowed": float(
                self.excess_LT[self.differ_LT].max(initial=0) / SAFETY
            ),
        }


def compare_logits(model: MobileMoE, folder: Path, ids: Sequence[int], int8: bool) -> Logits:
    """Run both sides; `model` computes in torch what the file in `folder` holds."""
    mode: engine.Activations = "int8" if int8 else "fp32"
    loaded = engine.load(folder, activations=mode, threads=1)
    session = loaded.session()
    engine_TV = session.append_all(ids)
    routed = session.routing().astype(np.int64) if loaded.config.is_moe else None
    given = np.zeros((0, len(ids), 1), np.int64) if routed is None else routed
    torch_TV, trace = torch_logits(model, ids, given)
    weights, kv = Weights(open_checkpoint(folder)), default_kv(loaded.config, mode)
    expected = spread(weights, ids, routed, int8, kv)
    worst = spread(weights, ids, routed, int8, kv, worst=True) if int8 else expected
    differ_LT, excess_LT = other_choices(model, given, trace, expected.scores_LTE)
    return Logits(
        error_T=np.linalg.norm(torch_TV - engine_TV, axis=-1),
        size_T=np.linalg.norm(engine_TV, axis=-1),
        expected_T=np.sqrt(expected.logits_T),
        worst_T=np.sqrt(worst.logits_T),
        differ_LT=differ_LT,
        excess_LT=excess_LT,
    )


def other_choices(
    model: MobileMoE, chosen_LTK: Floats, trace: list[Routing], scores_LTE: Floats
) -> tuple[Floats, Floats]:
    """Return where torch chooses another set, and its margin over the expected difference."""
    L, T = chosen_LTK.shape[:2]
    differ_LT, excess_LT = np.zeros((L, T), bool), np.zeros((L, T))
    biases = [b.numpy() for name, b in model.named_buffers() if name.endswith("expert_bias")]
    for i, free in enumerate(trace):
        biased_TE = free.router_logits_TE.sigmoid().numpy() + biases[i]
        for t in range(T):
            own, other = set(free.topk_ids_TK[t].tolist()), set(chosen_LTK[i, t].tolist())
            if own != other:
                gained, lost = sorted(own - other), sorted(other - own)
                margin = biased_TE[t, gained].max() - biased_TE[t, lost].min()
                variance = scores_LTE[i, t, gained].max() + scores_LTE[i, t, lost].max()
                differ_LT[i, t], excess_LT[i, t] = True, margin / np.sqrt(variance)
    return differ_LT, excess_LT


def main() -> None:
    """Compare in both modes, write down, say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=SHIPPED)
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    modes = {}
    for int8 in (False, True):
        model = int8_model(given.folder) if int8 else MobileMoE.from_pretrained(given.folder).eval()
        random = np.random.default_rng(5)
        ids = random.integers(0, model.config.vocab_size, given.tokens).tolist()
        found = compare_logits(model, given.folder, ids, int8)
        modes["int8" if int8 else "exact"] = found.figures() | {"agrees": found.agrees}
    result = {
        "benchmark": "qat_logits",
        "date": time.strftime("%Y-%m-%d"),
        "machine": asdict(this_machine()),
        "versions": versions(("mobilemoe", "numpy", "torch")),
        "model": given.folder.name,
        "tokens": given.tokens,
        "allowed_over_expected": {"all tokens": SUM_SAFETY, "each token": SAFETY},
        "modes": modes,
    }
    atomic_write(given.out, json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
