"""A recipe whose four stages take seconds, on texts and conversations made here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from mobilemoe.data import train_tokenizer

WORDS = [
    *("red", "green", "blue", "one", "two", "three", "sun", "moon", "star"),
    *("runs", "sleeps", "sings", "the", "a", "over", "under"),
]
VOCABULARY = 300

RECIPE = """
name = "tiny"
seed = 0
tokenizer = "{folder}"

[model]
vocab_size = {vocabulary}
hidden_size = 64
intermediate_size = 32
intermediate_size_mlp = 64
num_hidden_layers = 2
num_attention_heads = 2
num_key_value_heads = 1
head_dim = 32
num_local_experts = 6
num_experts_per_tok = 2
max_position_embeddings = 128
interleave_moe_layer_step = 1
rms_norm_eps = 1e-5
rope_theta = 10_000.0
rope_scaling_factor = 1.0
rope_original_max_position_embeddings = 8192
routed_scaling_factor = 2.5
tie_word_embeddings = true
bos_token_id = 0
eos_token_id = [1, 4]

[optimizer]
beta1 = 0.9
beta2 = 0.95
eps = 1e-8
weight_decay = 0.1
clip_norm = 1.0

[routing]
bias_update_rate = 1e-3
z_loss = 1e-4

[sources.texts]
kind = "jsonl"
path = "{folder}/texts.jsonl"
domain = "words"
licence = "Apache-2.0"
text_field = "text"

[sources.talks]
kind = "jsonl"
path = "{folder}/talks.jsonl"
domain = "talk"
licence = "Apache-2.0"
messages_field = "messages"

[run]
tokenizer_workers = 0
threads = 1
save_every_seconds = 0.05
"""

STAGE = """
[{name}]
purpose = "a short stage"
for_domains = ["words"]
tokens = {tokens}
context = 64
batch_tokens = 256
lr = {lr}
schedule = "{schedule}"
warmup_steps = 2
final_lr = {final_lr}
dispatch = "{dispatch}"
{capacity}
quantization = "{quantization}"
activations = "{activations}"

[{name}.mixture]
{mixture}
"""


def write_inputs(folder: Path) -> Path:
    """Write texts, conversations, tokenizer and recipe to `folder`; return the recipe's path."""
    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(WORDS, 24)) + "." for _ in range(400)]
    talks = [
        [
            {"role": "user", "content": f"{word} {number}"},
            {"role": "assistant", "content": word},
        ]
        for number, word in enumerate(list(random.choice(WORDS, 300)))
    ]
    write_lines(folder / "texts.jsonl", [{"text": text} for text in texts])
    write_lines(folder / "talks.jsonl", [{"messages": talk} for talk in talks])
    words = [*texts, *(turn["content"] for talk in talks for turn in talk)]
    tokenizer = train_tokenizer(words, VOCABULARY)
    tokenizer.save(str(folder / "tokenizer.json"))
    path = folder / "tiny.toml"
    head = RECIPE.format(folder=folder, vocabulary=VOCABULARY)
    path.write_text(head + "".join(map(stage_table, ("pretrain", "midtrain", "sft", "qat"))))
    return path


def write_lines(path: Path, records: list[dict[str, object]]) -> None:
    """Write one JSON object per line."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def stage_table(name: str) -> str:
    """The TOML of one stage, different where the four are."""
    drops = name in ("pretrain", "midtrain")
    is_qat = name == "qat"
    talks = "texts = 1.0" if drops else "texts = 0.25\ntalks = 0.75"
    return STAGE.format(
        name=name,
        tokens=256 * (30 if name == "pretrain" else 12),
        lr=1e-2 if name == "pretrain" else 2e-3,
        schedule="linear" if name == "midtrain" else "cosine",
        final_lr=0.0 if name == "midtrain" else 0.1,
        dispatch="drop-and-pad" if drops else "dropless",
        capacity="capacity_factor = 1.5" if drops else "",
        quantization="int4" if is_qat else "none",
        activations="int8" if is_qat else "float",
        mixture=talks,
    )
