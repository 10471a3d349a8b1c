"""A small checkpoint with a tokenizer, and a way to run the installed command."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from mobilemoe import ModelConfig
from mobilemoe.checkpoint import write_checkpoint

Run = Callable[..., subprocess.CompletedProcess[str]]
COMMAND = Path(sys.executable).parent / "mobilemoe"
SPECIAL = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|header_start|>",
    "<|header_end|>",
    "<|eot|>",
)


@pytest.fixture(scope="session")
def run() -> Run:
    """Return a function that runs `mobilemoe ARGUMENTS` and gives its status and output."""
    environment = {key: value for key, value in os.environ.items() if "MOBILEMOE" not in key}

    def run_command(
        *arguments: str | Path, stdin: str = "", cwd: Path | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [COMMAND, *map(str, arguments)],
            input=stdin.encode(),
            capture_output=True,
            env=environment | variables,
            cwd=cwd,
            timeout=120,
            check=False,
        )
        out, err = done.stdout.decode(), done.stderr.decode()
        return subprocess.CompletedProcess(done.args, done.returncode, out, err)

    return run_command


def byte_tokenizer() -> str:
    """Return a tokenizer.json of the five special tokens and the 256 bytes."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *letters])}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    return tokenizer.to_str()


def small_config() -> ModelConfig:
    """Return a mixture of 12 experts that answers in milliseconds."""
    return replace(
        ModelConfig.preset("nano"),
        vocab_size=288,
        hidden_size=64,
        intermediate_size=32,
        intermediate_size_mlp=128,
        num_hidden_layers=2,
        num_attention_heads=1,
        num_local_experts=12,
        max_position_embeddings=256,
    )


def write(folder: Path, chat: bool) -> Path:
    """Write a random checkpoint; the ids above the tokenizer's are never the likeliest."""
    config = small_config()
    rng = np.random.default_rng(0)
    arrays = {
        weight.name: rng.normal(0, 0.3, weight.shape).astype(np.float32)
        for weight in config.weights()
    }
    arrays["model.embed_tokens.weight"][len(SPECIAL) + 256 :] = 0
    write_checkpoint(folder, config, "int4", arrays.__getitem__, byte_tokenizer(), chat=chat)
    return folder


@pytest.fixture(scope="session")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a checkpoint with a chat template."""
    return write(tmp_path_factory.mktemp("models") / "chat", chat=True)


@pytest.fixture(scope="session")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the same checkpoint without one."""
    return write(tmp_path_factory.mktemp("models") / "base", chat=False)
