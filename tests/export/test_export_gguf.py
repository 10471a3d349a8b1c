"""The GGUF file as gguf's reader and llama.cpp see it, against the checkpoint it was made of."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest

import mobilemoe
from mobilemoe import MobileMoEError, ModelConfig
from mobilemoe.checkpoint import init_checkpoint, open_checkpoint
from mobilemoe.checkpoint.fingerprint import fingerprint
from mobilemoe.export import export_gguf
from mobilemoe.export.gguf import read_fingerprint

DATA = Path(__file__).parents[1] / "data"
SMALL = ModelConfig(
    vocab_size=320,
    hidden_size=96,
    intermediate_size=32,
    intermediate_size_mlp=64,
    num_hidden_layers=3,
    num_attention_heads=6,
    num_key_value_heads=2,
    head_dim=16,
    num_local_experts=7,
    num_experts_per_tok=3,
    max_position_embeddings=256,
)
DENSE = replace(SMALL, num_local_experts=0, num_experts_per_tok=0, intermediate_size=0)
UNTIED = replace(SMALL, tie_word_embeddings=False, rope_scaling_factor=1.0)
SHAPES = {"moe": SMALL, "dense": DENSE, "untied": UNTIED}


@pytest.fixture(scope="module", params=[*SHAPES, "tiny-int4-hd64"])
def checkpoint(request, tmp_path_factory):
    if request.param not in SHAPES:
        return open_checkpoint(DATA / request.param)
    folder = tmp_path_factory.mktemp("export") / request.param
    return init_checkpoint(folder, SHAPES[request.param], "int4", seed=3)


@pytest.fixture(scope="module")
def weights(checkpoint):
    return {weight.name: values for weight, values in checkpoint.read_weights()}


def contents(path: Path) -> dict[str, np.ndarray]:
    """Every tensor as float32 in row-major shape, dequantised by gguf."""
    found = {}
    for tensor in gguf.GGUFReader(path).tensors:
        shape = tuple(int(size) for size in reversed(tensor.shape))
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        found[tensor.name] = values.reshape(shape)
    return found


def halves_first(weight: np.ndarray, heads: int) -> np.ndarray:
    d = len(weight) // heads
    order = [h * d + i for h in range(heads) for i in [*range(0, d, 2), *range(1, d, 2)]]
    return weight[order]


def expected_linears(config, weights, layer):
    of, to = f"model.layers.{layer}.", f"blk.{layer}."
    attention = of + "self_attn."
    yield to + "attn_v", weights[attention + "v_proj.weight"]
    yield to + "attn_output", weights[attention + "o_proj.weight"]
    for name, heads in (("q", config.num_attention_heads), ("k", config.num_key_value_heads)):
        yield to + f"attn_{name}", halves_first(weights[attention + f"{name}_proj.weight"], heads)
    moe = config.is_moe_layer(layer)
    suffix, swiglu = ("_shexp", "shared_expert.") if moe else ("", "")
    for part in ("gate", "up", "down"):
        name = f"{of}feed_forward.{swiglu}{part}_proj.weight"
        yield to + f"ffn_{part}{suffix}", weights[name]


def expected_experts(config, weights, layer):
    of, F = f"model.layers.{layer}.feed_forward.experts.", config.intermediate_size
    gate_up = weights[of + "gate_up_proj"].swapaxes(1, 2)
    yield f"blk.{layer}.ffn_gate_exps", gate_up[:, :F]
    yield f"blk.{layer}.ffn_up_exps", gate_up[:, F:]
    yield f"blk.{layer}.ffn_down_exps", weights[of + "down_proj"].swapaxes(1, 2)


def test_two_dimensional_weights_are_bit_equal(checkpoint, weights, tmp_path):
    export = export_gguf(checkpoint, tmp_path / "m.gguf")
    found, config = contents(export.path), checkpoint.config
    head = "model.embed_tokens.weight" if config.tie_word_embeddings else "lm_head.weight"
    assert np.array_equal(found["token_embd.weight"], weights["model.embed_tokens.weight"])
    assert np.array_equal(found["output.weight"], weights[head])
    assert np.array_equal(found["output_norm.weight"], weights["model.norm.weight"])
    for layer in range(config.num_hidden_layers):
        for name, values in expected_linears(config, weights, layer):
            assert np.array_equal(found[f"{name}.weight"], values), name
        assert np.all(found[f"blk.{layer}.attn_q_norm.weight"] == 1)
        norm = weights[f"model.layers.{layer}.post_attention_layernorm.weight"]
        assert np.array_equal(found[f"blk.{layer}.ffn_norm.weight"], norm)
        norm = weights[f"model.layers.{layer}.input_layernorm.weight"]
        assert np.array_equal(found[f"blk.{layer}.attn_norm.weight"], norm)
    assert export.tensors == len(found)
    assert export.file_bytes == export.path.stat().st_size


def test_experts_are_rounded_with_the_loss_that_is_told(checkpoint, weights, tmp_path):
    export = export_gguf(checkpoint, tmp_path / "m.gguf")
    if not checkpoint.config.is_moe:
        assert export.expert_rms_error is None
        return
    found, error, power = contents(export.path), 0.0, 0.0
    for layer in range(checkpoint.config.num_hidden_layers):
        for name, values in expected_experts(checkpoint.config, weights, layer):
            wide = values.astype(np.float64)
            error += ((found[f"{name}.weight"] - wide) ** 2).sum()
            power += (wide**2).sum()
        router = weights[f"model.layers.{layer}.feed_forward.router.weight"]
        assert np.array_equal(found[f"blk.{layer}.ffn_gate_inp.weight"], router)
        bias = weights[f"model.layers.{layer}.feed_forward.expert_bias"]
        assert np.array_equal(found[f"blk.{layer}.exp_probs_b.bias"], bias)
    assert export.expert_rms_error == pytest.approx(np.sqrt(error / power), rel=1e-6)
    assert 0.02 < export.expert_rms_error < 0.15


def test_f32_keeps_every_expert(checkpoint, weights, tmp_path):
    export = export_gguf(checkpoint, tmp_path / "m.gguf", "f32")
    assert export.expert_rms_error is None
    found = contents(export.path)
    assert np.array_equal(found["token_embd.weight"], weights["model.embed_tokens.weight"])
    if checkpoint.config.is_moe:
        for name, values in expected_experts(checkpoint.config, weights, 1):
            assert np.array_equal(found[f"{name}.weight"], values), name


def test_keys_say_what_the_model_is(checkpoint, tmp_path):
    export = export_gguf(checkpoint, tmp_path / "m.gguf")
    reader, config = gguf.GGUFReader(export.path), checkpoint.config

    def value(key):
        return reader.get_field(f"exaone-moe.{key}").contents()

    assert reader.get_field("general.architecture").contents() == export.architecture
    assert value("block_count") == config.num_hidden_layers
    assert value("embedding_length") == config.hidden_size
    assert value("attention.head_count") == config.num_attention_heads
    assert value("attention.head_count_kv") == config.num_key_value_heads
    assert value("attention.sliding_window") >= config.max_position_embeddings
    assert value("attention.sliding_window_pattern") == [True] * config.num_hidden_layers
    assert value("rope.freq_base") == config.rope_theta
    assert value("expert_count") == config.num_local_experts
    assert value("expert_weights_scale") == pytest.approx(config.routed_scaling_factor)
    dense = 0 if config.is_moe else config.num_hidden_layers
    assert value("leading_dense_block_count") == dense
    assert value("vocab_size") == config.vocab_size
    assert read_fingerprint(export.path) == fingerprint(checkpoint)


def test_rope_factors_are_a_step_at_the_original_context(tmp_path):
    config = replace(SMALL, rope_theta=500_000.0, rope_scaling_factor=16.0, head_dim=64)
    config = replace(config, num_attention_heads=3, num_key_value_heads=1)
    checkpoint = init_checkpoint(tmp_path / "m", config, "int4", seed=0)
    factors = contents(export_gguf(checkpoint, tmp_path / "m.gguf").path)["rope_freqs.weight"]
    assert factors.tolist() == [1] * 18 + [16] * 14  # as the release: 14 of 32 are divided


def test_progress_ends_at_the_total(tmp_path):
    checkpoint = open_checkpoint(DATA / "tiny-int4")
    told: list[tuple[int, int]] = []
    export_gguf(checkpoint, tmp_path / "m.gguf", progress=lambda *step: told.append(step))
    assert told[-1][0] == told[-1][1]
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_what_was_there_stays_if_the_weights_are_damaged(tmp_path):
    folder = tmp_path / "m"
    checkpoint = init_checkpoint(folder, SMALL, "int4", seed=0)
    out = tmp_path / "out" / "m.gguf"
    export_gguf(checkpoint, out)
    before = out.read_bytes()

    def cut(done: int, total: int) -> None:
        (folder / "model.safetensors").write_bytes(b"")

    with pytest.raises(MobileMoEError, match="truncated"):
        export_gguf(checkpoint, out, progress=cut)
    assert out.read_bytes() == before
    assert list(out.parent.iterdir()) == [out]


@pytest.mark.parametrize(
    ("changes", "weight_format", "message"),
    [
        ({"interleave_moe_layer_step": 2}, "int4", "interleave_moe_layer_step is 2; allowed"),
        ({"intermediate_size_mlp": 0}, "int4", "allowed for GGUF: a shared expert"),
        ({}, "bf16", "its weights are bf16; allowed: int4"),
    ],
)
def test_what_the_graph_cannot_say_is_refused(tmp_path, changes, weight_format, message):
    checkpoint = init_checkpoint(tmp_path / "m", replace(SMALL, **changes), weight_format, seed=0)
    with pytest.raises(MobileMoEError, match=message):
        export_gguf(checkpoint, tmp_path / "m.gguf")
    assert not (tmp_path / "m.gguf").exists()


def test_an_unknown_weight_type_is_refused(tmp_path):
    with pytest.raises(MobileMoEError, match="weight_type is 'q8_0'; allowed: q4_0, f32"):
        export_gguf(open_checkpoint(DATA / "tiny-int4"), tmp_path / "m.gguf", "q8_0")


def test_without_gguf_the_package_is_named(tmp_path):
    code = (
        "import sys; from pathlib import Path; sys.modules['gguf'] = None\n"
        "from mobilemoe.checkpoint import open_checkpoint\n"
        "from mobilemoe.export import export_gguf\n"
        "try: export_gguf(open_checkpoint(sys.argv[1]), Path(sys.argv[2]))\n"
        "except ValueError as error: print(error)\n"
    )
    command = [sys.executable, "-c", code, str(DATA / "tiny-int4"), str(tmp_path / "m.gguf")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "writing GGUF needs the package gguf" in done.stdout
    assert "mobilemoe[bench]" in done.stdout


def test_a_file_that_says_nothing_has_no_fingerprint(tmp_path):
    (tmp_path / "x").write_bytes(b"GGUF")
    assert read_fingerprint(tmp_path / "x") is None
    assert read_fingerprint(tmp_path / "nothing") is None


def llama_logits(path: Path, ids: list[int], vocab_size: int) -> np.ndarray:
    """Logits [T, V] of llama.cpp with a float32 KV cache and without flash attention."""
    import llama_cpp

    silent = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(silent, ctypes.c_void_p())
    llama_cpp.llama_backend_init()
    parameters = llama_cpp.llama_model_default_params()
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), parameters)
    assert model
    options = llama_cpp.llama_context_default_params()
    options.n_ctx = options.n_batch = options.n_ubatch = 256
    options.type_k = options.type_v = llama_cpp.GGML_TYPE_F32
    options.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    options.n_threads = options.n_threads_batch = 1
    context = llama_cpp.llama_init_from_model(model, options)
    batch = llama_cpp.llama_batch_init(len(ids), 0, 1)
    batch.n_tokens = len(ids)
    for index, token in enumerate(ids):
        batch.token[index], batch.pos[index], batch.logits[index] = token, index, 1
        batch.n_seq_id[index], batch.seq_id[index][0] = 1, 0
    assert llama_cpp.llama_decode(context, batch) == 0
    rows = [llama_cpp.llama_get_logits_ith(context, index) for index in range(len(ids))]
    logits = np.array([np.ctypeslib.as_array(row, (vocab_size,)) for row in rows])
    llama_cpp.llama_batch_free(batch)
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    llama_cpp.llama_log_set(llama_cpp.llama_log_callback(0), ctypes.c_void_p())
    return logits


def test_llama_cpp_computes_the_same_logits(checkpoint, tmp_path):
    pytest.importorskip("llama_cpp")
    path = export_gguf(checkpoint, tmp_path / "m.gguf", "f32").path
    V = checkpoint.config.vocab_size
    ids = np.random.default_rng(5).integers(0, V, 200).tolist()
    theirs = llama_logits(path, ids, V)
    ours = mobilemoe.load(checkpoint.folder, threads=1, activations="fp32").logits(ids)
    worst = np.abs(theirs - ours).max(axis=1)
    bound = 1e-4 * np.abs(ours).max()
    assert worst.max() < bound, (int(worst.argmax()), worst.max(), bound)
    assert (theirs.argmax(axis=1) == ours.argmax(axis=1)).mean() > 0.99


def test_llama_cpp_runs_q4_0_near_the_exact_logits(checkpoint, tmp_path):
    pytest.importorskip("llama_cpp")
    path = export_gguf(checkpoint, tmp_path / "m.gguf").path
    V = checkpoint.config.vocab_size
    ids = np.random.default_rng(6).integers(0, V, 64).tolist()
    theirs = llama_logits(path, ids, V)
    ours = mobilemoe.load(checkpoint.folder, threads=1, activations="fp32").logits(ids)
    norms = np.linalg.norm(theirs, axis=1) * np.linalg.norm(ours, axis=1)
    cosines = (theirs * ours).sum(axis=1) / norms
    assert np.median(cosines) > 0.95
