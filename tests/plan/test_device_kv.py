"""KV bytes that the planner counts are those that the native cache allocates."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from mobilemoe.checkpoint import init_checkpoint
from mobilemoe.config import ModelConfig
from mobilemoe.plan import Budget

BASE = replace(
    ModelConfig.preset("nano"),
    vocab_size=256,
    hidden_size=64,
    intermediate_size=32,
    intermediate_size_mlp=0,
    num_local_experts=4,
    num_experts_per_tok=1,
    max_position_embeddings=8192,
)
SHAPES = {
    "one-head": replace(BASE, num_hidden_layers=6, num_attention_heads=1),
    "grouped": replace(
        BASE, num_hidden_layers=2, num_attention_heads=8, num_key_value_heads=4, head_dim=32
    ),
    "wide-heads": replace(
        BASE, num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=2, head_dim=128
    ),
}
CONTEXTS = (2048, 4096, 8192)  # above a chunk of 512: what else a session takes hardly grows
SLACK = 128 * 1024  # pages of four buffers, and a float per position and head for the scores
# The address space that a session adds: large buffers are mapped, to the page. A first session
# makes the heap as large as small buffers need it.
TAKE = """
import json, resource, sys
from pathlib import Path
from mobilemoe.engine import load
path, kv, contexts = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
def mapped():
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
kept, taken = [load(path, threads=1, context=1024, kv=kv).session()], []
for context in contexts:
    model = load(path, threads=1, context=context, kv=kv)
    before = mapped()
    kept.append((model, model.session()))
    taken.append(mapped() - before)
print(json.dumps(taken))
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("kv")
    for name, config in SHAPES.items():
        init_checkpoint(root / name, config, "int4", 0)
    return {name: root / name for name in SHAPES}


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
@pytest.mark.parametrize("kv", ["int8", "fp16", "fp32"])
@pytest.mark.parametrize("name", list(SHAPES))
def test_the_engine_allocates_what_the_planner_counts(folders, name, kv) -> None:
    command = [sys.executable, "-c", TAKE, str(folders[name]), kv, json.dumps(CONTEXTS)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    taken = dict(zip(CONTEXTS, json.loads(done.stdout), strict=True))
    for shorter, longer in pairwise(CONTEXTS):
        counted = [
            Budget(context=context, kv_format=kv).kv_bytes(SHAPES[name])
            for context in (shorter, longer)
        ]
        assert taken[longer] - taken[shorter] == pytest.approx(counted[1] - counted[0], abs=SLACK)
        assert counted[1] - counted[0] > 4 * SLACK
