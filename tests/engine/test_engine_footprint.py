"""The predicted memory of a model and a session is what a process really takes."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from engine_support import SMALL, write_random

from mobilemoe.engine.footprint import CHUNK, default_kv_format, model_bytes, session_bytes

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
path, context, activations, kv = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
def taken(context):
    model = load(path, threads=2, context=context, activations=activations, kv=kv)
    session = model.session()
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
@pytest.mark.parametrize(
    ("activations", "kv"),
    [("int8", "int8"), ("int8", "fp16"), ("int8", "fp32"), ("fp32", "int8"), ("fp32", "fp32")],
)
@pytest.mark.parametrize("context", [256, CHUNK, 2048])
def test_a_session_takes_what_is_predicted(folder, context, activations, kv):
    command = [sys.executable, "-c", TAKE, str(folder), str(context), activations, kv]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    predicted = model_bytes(CONFIG) + session_bytes(CONFIG, context, 2, activations == "int8", kv)
    assert json.loads(done.stdout) == pytest.approx(predicted, rel=0.03)


@pytest.mark.parametrize("int8", [True, False])
def test_the_default_cache_goes_with_the_activations(int8):
    kv = "int8" if int8 else "fp32"
    assert default_kv_format(int8) == kv
    assert session_bytes(CONFIG, 640, int8=int8) == session_bytes(CONFIG, 640, int8=int8, kv=kv)


@pytest.mark.parametrize("kv", ["int8", "fp16", "fp32"])
def test_a_longer_context_costs_its_keys_and_values(kv):
    """And scores of the heads of a group in floats, and the choices of each layer."""
    more = session_bytes(CONFIG, 2048, kv=kv) - session_bytes(CONFIG, 1024, kv=kv)
    heads = CONFIG.num_attention_heads // CONFIG.num_key_value_heads
    scores = 0 if kv == "int8" else 4 * heads
    choices = 4 * CONFIG.num_hidden_layers * CONFIG.num_experts_per_tok
    assert more == 1024 * (CONFIG.kv_bytes_per_token(kv) + scores + choices)
