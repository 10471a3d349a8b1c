"""What the finished model is worth: perplexity per form, experts, parity, speed, text.

T tokens, V vocabulary, L layers, E experts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mobilemoe import engine
from mobilemoe.checkpoint import ChatFormat, open_checkpoint
from mobilemoe.config import ModelConfig
from mobilemoe.data import DOMAINS, Dataset
from mobilemoe.demo.export import FORMS, TWIN
from mobilemoe.demo.settings import Settings
from mobilemoe.demo.training import score
from mobilemoe.demo.verdict import quantization_verdict
from mobilemoe.evaluate.experts import Float64, expert_share, reading
from mobilemoe.evaluate.heldout import HeldoutLoss, perplexities, relative_error, row_cosines
from mobilemoe.model import MobileMoE
from mobilemoe.profile.bench import Workload, measure_interleaved
from mobilemoe.quant.fake import enable_fake_quant
from mobilemoe.train import load_weights

CONTEXT = 512
PARITY_TOKENS = 200
PROMPT_TOKENS, NEW_TOKENS, ROUNDS = 256, 256, 9
NAMES = {
    "sft-bf16": ("BF16", "after instruction tuning"),
    "sft-int4": ("PTQ INT4", "the same, rounded after training"),
    "model": ("QAT INT4", "trained on with INT4 rounding"),
    "control-bf16": ("control BF16", "trained on with the same tokens, no rounding"),
    "control-int4": ("control PTQ INT4", "the control, rounded after training"),
}
SAMPLE_PROMPTS = (
    ("completion", "def fibonacci("),
    ("chat", "What does the function `os.path.join` do?"),
    ("chat", "Compute 47 + 36. Show your steps."),
)
Progress = Callable[[int, int], None]


def data_part(dataset: Dataset) -> dict[str, Any]:
    """Return the size of the corpus per domain."""
    domains = {}
    for name, train in dataset.statistics["train"].items():
        heldout = dataset.statistics["heldout"][name]
        domains[name] = {
            "documents": train.documents + heldout.documents,
            "bytes": train.bytes + heldout.bytes,
            "train_tokens": train.tokens,
            "heldout_tokens": heldout.tokens,
        }
    total = sum(domain["train_tokens"] for domain in domains.values())
    return {
        "sha256": dataset.sha256,
        "vocab_size": dataset.tokenizer.get_vocab_size(),
        "domains": domains,
        "summary": f"{total:,} training tokens in {len(domains)} domains",
    }


def evaluate_part(
    folder: Path, dataset: Dataset, settings: Settings, progress: Progress
) -> dict[str, Any]:
    """Return perplexities of every form, use of experts, and parity of torch and engine."""
    losses: dict[str, dict[str, HeldoutLoss]] = {}
    for done, name in enumerate(FORMS):
        model = MobileMoE.from_pretrained(folder / name)
        losses[name] = score(model, dataset, CONTEXT, settings.heldout_tokens)
        progress(done + 1, len(FORMS) + 2)
    experts = experts_part(
        MobileMoE.from_pretrained(folder / "model"), dataset, settings.heldout_tokens
    )
    progress(len(FORMS) + 1, len(FORMS) + 2)
    parity = parity_part(folder, dataset)
    progress(len(FORMS) + 2, len(FORMS) + 2)
    quantization = quantization_part(losses, settings.seed)
    rows = {row["name"]: row["perplexity"]["mean"] for row in quantization["rows"]}
    summary = f"perplexity BF16 {rows['BF16']:.2f}, QAT INT4 {rows['QAT INT4']:.2f}"
    return {
        "quantization": quantization,
        "experts": experts,
        "parity": parity,
        "summary": summary,
    }


def quantization_part(losses: dict[str, dict[str, HeldoutLoss]], seed: int) -> dict[str, Any]:
    """Return perplexity rows and the verdict on quantisation-aware training."""
    rows = [
        {"name": title, "note": note, "perplexity": perplexities(losses[name])}
        for name, (title, note) in NAMES.items()
    ]
    mean = {name: perplexities(loss)["mean"] for name, loss in losses.items()}
    return {
        "heldout_tokens": sum(sum(loss.tokens) for loss in losses["model"].values()),
        "rows": rows,
        "seeds": [
            {
                "seed": seed,
                "control_bf16": mean["control-bf16"],
                "control_ptq": mean["control-int4"],
                "qat": mean["model"],
            }
        ],
        "verdict": quantization_verdict(
            bf16=losses["control-bf16"], ptq=losses["control-int4"], qat=losses["model"], seed=seed
        ),
    }


def experts_part(model: MobileMoE, dataset: Dataset, tokens: int) -> dict[str, Any]:
    """Return the share of every expert per layer and domain, and its reading."""
    share_LE: dict[str, Float64] = {
        domain: expert_share(model, dataset.heldout_batches(domain, CONTEXT, 8, tokens))
        for domain in DOMAINS
    }
    share_LDE = np.stack([share_LE[domain] for domain in DOMAINS], axis=1)
    return {"domains": list(DOMAINS), "share": share_LDE.tolist(), "reading": reading(share_LE)}


def parity_part(folder: Path, dataset: Dataset) -> dict[str, Any]:
    """Compare the engine on the exported file with the fake-quantised model it came from."""
    ids = heldout_ids(dataset, PARITY_TOKENS)
    config = open_checkpoint(folder / "model").config
    model = load_weights(MobileMoE(config), folder / "stages" / "qat").eval()
    enable_fake_quant(model, config.weights())
    with torch.no_grad():
        torch_TV = model(torch.tensor([ids]))[0].numpy()
    exact_TV = engine.load(folder / "model", activations="fp32").logits(ids)
    int8_TV = engine.load(folder / "model", activations="int8").logits(ids)
    return {
        "tokens": len(ids),
        "relative_error": relative_error(exact_TV, torch_TV),
        "max_abs_error": float(np.abs(exact_TV - torch_TV).max()),
        "int8_median_cosine": float(np.median(row_cosines(int8_TV, exact_TV))),
        "argmax_agreement": float((int8_TV.argmax(1) == exact_TV.argmax(1)).mean()),
    }


def heldout_ids(dataset: Dataset, count: int) -> list[int]:
    """Return `count` held-out tokens: equal parts of code, knowledge and mathematics."""
    each = -(-count // len(DOMAINS))
    ids: list[int] = []
    for domain in DOMAINS:
        batch = next(dataset.heldout_batches(domain, each, 1, each))
        ids += batch.ids_BT[0].tolist()
    return ids[:count]


def speed_part(
    folder: Path, dataset: Dataset, config: ModelConfig, progress: Progress
) -> dict[str, Any]:
    """Measure the model and its dense twin on a real prompt, rounds interleaved."""
    workload = Workload(
        prompt_ids=tuple(heldout_ids(dataset, PROMPT_TOKENS)),
        new_tokens=NEW_TOKENS,
        threads=None,
        context=PROMPT_TOKENS + NEW_TOKENS,
    )
    subjects = {"MoE": ("model", config, True), "dense twin": (TWIN, config.dense_twin(), False)}
    paths = [folder / name for name, _, _ in subjects.values()]
    speeds = measure_interleaved(paths, workload, ROUNDS, lambda done: progress(done, ROUNDS))
    models = [
        {
            "name": title,
            "ttft_ms": list(speed.ttft_ms),
            "prefill_tok_s": list(speed.prefill_tok_s),
            "decode_tok_s": list(speed.decode_tok_s),
            "peak_rss_mib": speed.peak_rss_mib,
            "weight_bytes_int4": shape.weight_bytes("int4"),
            "active_params": shape.active_params,
            "trained": trained,
        }
        for (title, (_, shape, trained)), speed in zip(subjects.items(), speeds, strict=True)
    ]
    medians = [float(np.median(speed.decode_tok_s)) for speed in speeds]
    return {
        "rounds": ROUNDS,
        "threads": speeds[0].threads,
        "instruction_set": speeds[0].instruction_set,
        "prompt_tokens": PROMPT_TOKENS,
        "new_tokens": NEW_TOKENS,
        "models": models,
        "summary": f"decode {medians[0]:,.0f} tok/s, dense twin {medians[1]:,.0f}",
    }


def samples_part(model_folder: Path) -> dict[str, Any]:
    """Generate greedily from three prompts."""
    model = engine.load(model_folder)
    samples = []
    for kind, prompt in SAMPLE_PROMPTS:
        text = prompt
        if kind == "chat":
            text = ChatFormat.from_folder(model_folder).render(
                [{"role": "user", "content": prompt}]
            )
        samples.append({"kind": kind, "prompt": prompt, "text": "".join(_texts(model, text, kind))})
    return {"samples": samples}


def _texts(model: engine.Model, text: str, kind: str) -> Iterator[str]:
    prompt: str | list[int] = text
    if kind == "chat":  # the template has written BOS already
        prompt = model.tokenizer.encode(text, add_bos=False)
    for token in model.generate(prompt, max_new_tokens=120):
        yield token.text
