"""The predicted memory of a model and a session is what a process really takes."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from engine_support import SMALL, write_random

from mobilemoe.engine.footprint import model_bytes, session_bytes

CONFIG = replace(
    SMALL,
    hidden_size=384,
    intermediate_size=192,
    intermediate_size_mlp=768,
    num_hidden_layers=2,
    num_attention_heads=6,
    head_dim=64,
    num_local_experts=4,
    num_experts_per_tok=2,
    max_position_embeddings=2048,
)
# A small session first, so that what every process takes once is not counted.
TAKE = """
import json, sys
from pathlib import Path
from mobilemoe.engine import load
from mobilemoe.engine.system_files import read_field
path, context, activations = sys.argv[1], int(sys.argv[2]), sys.argv[3]
def taken(context):
    session = load(path, threads=2, context=context, activations=activations).session()
    session.append([1] * context)
    return session, read_field(Path("/proc/self/status"), "RssAnon")
first, before = taken(4)
second, after = taken(context)
print(json.dumps(1024 * (after - before)))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_random(tmp_path_factory.mktemp("footprint") / "model", CONFIG).folder


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
@pytest.mark.parametrize("activations", ["int8", "fp32"])
@pytest.mark.parametrize("context", [256, 2048])
def test_a_session_takes_what_is_predicted(folder, context, activations):
    command = [sys.executable, "-c", TAKE, str(folder), str(context), activations]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    predicted = model_bytes(CONFIG) + session_bytes(CONFIG, context, 2, activations == "int8")
    assert json.loads(done.stdout) == pytest.approx(predicted, rel=0.04)


def test_a_longer_context_costs_its_keys_and_values():
    more = session_bytes(CONFIG, 2048) - session_bytes(CONFIG, 1024)
    scores = 4 * 1024
    assert more == 1024 * CONFIG.kv_bytes_per_token("fp32") + scores
