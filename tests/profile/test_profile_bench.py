"""Interleaved measurement on real processes; no assertion on how fast they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mobilemoe.checkpoint import write_checkpoint
from mobilemoe.config import ModelConfig
from mobilemoe.engine.native import instruction_set
from mobilemoe.errors import MobileMoEError
from mobilemoe.profile.bench import Worker, Workload, measure_interleaved

CONFIG = ModelConfig(
    vocab_size=40,
    hidden_size=64,
    intermediate_size=32,
    intermediate_size_mlp=64,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=32,
    num_local_experts=6,
    num_experts_per_tok=2,
    max_position_embeddings=128,
    eos_token_id=tuple(range(40)),  # every token would end a chat: a round must not stop
)
WORKLOAD = Workload(prompt_ids=(1, 2, 3, 4, 5), new_tokens=4, threads=1, context=64)


def write_random(folder, config):
    rng = np.random.default_rng(0)
    shapes = {weight.name: weight.shape for weight in config.weights()}
    return write_checkpoint(
        folder, config, "int4", lambda name: rng.standard_normal(shapes[name]).astype(np.float32)
    ).folder


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    dense = replace(CONFIG, num_local_experts=0, num_experts_per_tok=0, intermediate_size=0)
    return [write_random(folder / "moe", CONFIG), write_random(folder / "dense", dense)]


def test_every_model_gets_every_round(paths):
    done: list[int] = []
    speeds = measure_interleaved(paths, WORKLOAD, rounds=2, progress=done.append)
    assert done == [1, 2]
    assert len(speeds) == 2
    for speed in speeds:
        for values in (speed.ttft_ms, speed.prefill_tok_s, speed.decode_tok_s):
            assert len(values) == 2
            assert all(value > 0 and np.isfinite(value) for value in values)
        for ttft_ms, tok_s in zip(speed.ttft_ms, speed.prefill_tok_s, strict=True):
            assert tok_s == pytest.approx(5 / ttft_ms * 1e3)
        assert 5 < speed.peak_rss_mib < 1e5
        assert speed.threads == 1
        assert speed.instruction_set == instruction_set("auto")


def test_each_model_has_a_process_of_its_own(paths):
    workers = [Worker(path, WORKLOAD) for path in paths]
    try:
        assert len({worker._process.pid for worker in workers}) == 2
        assert all(worker.ready["threads"] == 1 for worker in workers)
    finally:
        for worker in workers:
            worker.close()
    assert all(worker._process.returncode is not None for worker in workers)


def test_a_path_without_a_model_is_its_own_error_and_ends_the_other_processes(paths, tmp_path):
    with pytest.raises(MobileMoEError, match=r"no checkpoint folder at .*nowhere"):
        measure_interleaved([paths[0], tmp_path / "nowhere"], WORKLOAD, rounds=1)


def test_a_prompt_longer_than_the_context_is_an_error(paths):
    too_long = replace(WORKLOAD, context=3)
    with pytest.raises(MobileMoEError, match="allowed: at most 3"):
        measure_interleaved(paths[:1], too_long, rounds=1)


def test_a_process_that_died_is_an_error(paths):
    worker = Worker(paths[0], WORKLOAD)
    worker._process.kill()
    worker._process.wait()
    with pytest.raises(MobileMoEError, match=r"benchmark process of .*moe ended with -9"):
        worker.round()
    worker.close()
