"""load: arguments, defaults, refusals, and what it must not import."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from engine_support import BF16_FOLDER, INT4_FOLDERS, SMALL, write_random

import mobilemoe
from mobilemoe.engine import default_threads, load, native
from mobilemoe.errors import CheckpointError, MobileMoEError

FOLDER = INT4_FOLDERS[0]


def test_defaults_and_properties():
    model = load(FOLDER)
    assert model.threads == default_threads()
    assert model.context == 8192 == model.config.max_position_embeddings
    assert model.activations == "int8"
    assert model.instruction_set == native.instruction_set()
    assert load(FOLDER, kernel="portable").instruction_set == "portable"


def test_default_context_is_the_models_own_when_shorter(tmp_path):
    write_random(tmp_path / "model", SMALL)
    assert load(tmp_path / "model", threads=1).context == 640


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"threads": 0}, "threads is 0; allowed: 1 to 1024"),
        ({"threads": 1025}, "threads is 1025"),
        ({"threads": 1.5}, "threads is 1.5"),
        ({"threads": True}, "threads is True"),
        ({"context": 0}, "context is 0; allowed: 1 to 8192"),
        ({"context": 8193}, "context is 8193"),
        ({"activations": "int4"}, "activations is 'int4'; allowed: int8, fp32"),
        ({"kv": "bf16"}, "kv is 'bf16'; allowed: int8, fp16, fp32"),
        ({"kv": 8}, "kv is 8; allowed: int8, fp16, fp32"),
        ({"kernel": "sse9"}, "kernel is 'sse9'; allowed: auto, avx512, avx2-vnni"),
    ],
)
def test_bad_arguments_are_refused_with_a_hint(arguments, message):
    with pytest.raises(MobileMoEError, match=message) as caught:
        load(FOLDER, **arguments)
    assert caught.value.hint


def test_bf16_weights_run_with_fp32_activations_by_default():
    assert load(BF16_FOLDER, threads=1).activations == "fp32"
    assert mobilemoe.load(BF16_FOLDER, threads=1).activations == "fp32"
    assert mobilemoe.load(FOLDER, threads=1).activations == "int8"


def test_int8_activations_with_bf16_weights_are_refused():
    with pytest.raises(MobileMoEError, match="activations is 'int8'; allowed: fp32") as caught:
        load(BF16_FOLDER, activations="int8")
    assert "mobilemoe convert" in caught.value.hint
    native_model = load(BF16_FOLDER, threads=1)._native
    with pytest.raises(ValueError, match="int8 is True; allowed for BF16 weights: False"):
        native.native_module().Session(native_model, 8, True, "int8")


def test_the_cache_follows_the_mode_unless_told():
    assert load(FOLDER, threads=1).kv == "int8"
    assert load(FOLDER, threads=1, activations="fp32").kv == "fp32"
    assert load(BF16_FOLDER, threads=1).kv == "fp32"
    for kv in ("int8", "fp16", "fp32"):
        for folder, activations in ((FOLDER, "int8"), (FOLDER, "fp32"), (BF16_FOLDER, "fp32")):
            model = mobilemoe.load(folder, 1, 8, activations, kv=kv)
            assert model.kv == kv
            assert np.isfinite(model.logits([1, 2, 3])).all()


@pytest.mark.parametrize("head_dim", [24, 528])
def test_heads_that_int8_does_not_take_are_cached_in_fp16(tmp_path, head_dim):
    config = replace(SMALL, head_dim=head_dim, num_attention_heads=4, num_key_value_heads=4)
    write_random(tmp_path / "model", config)
    model = load(tmp_path / "model", threads=1)
    assert (model.activations, model.kv) == ("int8", "fp16")
    with pytest.raises(MobileMoEError, match="kv is 'int8'; allowed: fp16, fp32") as caught:
        load(tmp_path / "model", threads=1, kv="int8")
    assert caught.value.hint == "int8 needs a head_dim that is a multiple of 16, at most 512"
    with pytest.raises(ValueError, match=f"allowed for head_dim {head_dim}: fp16, fp32") as caught:
        native.native_module().Session(model._native, 8, True, "int8")
    assert "multiple of 16, at most 512" in str(caught.value)


def test_the_native_class_refuses_other_caches():
    with pytest.raises(ValueError, match="kv is 'bf16'; allowed: int8, fp16, fp32"):
        native.native_module().Session(load(FOLDER, threads=1)._native, 8, True, "bf16")


@pytest.mark.parametrize("weight_format", ["int4", "bf16"])
def test_an_untied_head_must_be_in_the_file_and_a_tied_one_must_not(tmp_path, weight_format):
    untied = replace(SMALL, tie_word_embeddings=False)
    for config, other, message in (
        (SMALL, untied, r"lm_head\.\w+ is missing"),
        (untied, SMALL, r"lm_head\.\w+ is unknown"),
    ):
        write_random(tmp_path / "model", config, weight_format)
        write_random(tmp_path / "other", other, weight_format)
        shutil.copy(tmp_path / "other" / "config.json", tmp_path / "model")
        with pytest.raises(CheckpointError, match=message):
            load(tmp_path / "model", threads=1)


def test_heads_that_fill_no_int4_group_are_refused(tmp_path):
    config = replace(SMALL, num_attention_heads=2, num_key_value_heads=1)
    folder = tmp_path / "model"
    write_random(folder, config)
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace('"head_dim": 16', '"head_dim": 8'))
    with pytest.raises(MobileMoEError, match=r"head_dim is 8; allowed: .* a multiple of 32"):
        load(folder, threads=1)


def test_a_moe_model_in_which_no_layer_routes_is_refused(tmp_path):
    """No tensor would bound the sizes of its experts, but scratch memory would follow them."""
    write_random(tmp_path / "model", SMALL)
    path = tmp_path / "model" / "config.json"
    values = json.loads(path.read_text()) | {"interleave_moe_layer_step": 4}
    path.write_text(json.dumps(values))
    with pytest.raises(MobileMoEError, match="interleave_moe_layer_step is 4; allowed: 1 to num_"):
        load(tmp_path / "model", threads=1)


def test_a_config_of_another_model_is_refused(tmp_path):
    write_random(tmp_path / "model", SMALL)
    path = tmp_path / "model" / "config.json"
    path.write_text(path.read_text().replace('"num_local_experts": 7', '"num_local_experts": 8'))
    with pytest.raises(CheckpointError, match=r"router.weight is F32 \[7, 96\]; expected F32 \[8"):
        load(tmp_path / "model", threads=1)


def test_a_missing_native_module_is_explained():
    code = (
        "import sys; sys.modules['mobilemoe.engine._native'] = None\n"
        "from mobilemoe.engine import load\n"
        "from mobilemoe.errors import MobileMoEError\n"
        "try:\n"
        f"    load({str(FOLDER)!r})\n"
        "except MobileMoEError as error:\n"
        "    print(error)\n"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert "native engine cannot be loaded" in output and "hint: reinstall" in output


def test_the_engine_loads_neither_torch_nor_the_network():
    code = (
        "import sys\n"
        "from mobilemoe.engine import load\n"
        f"list(load({str(FOLDER)!r}, threads=1, context=8).generate([1], max_new_tokens=2))\n"
        "banned = {'torch', 'huggingface_hub', 'urllib.request', 'http.client', 'requests'}\n"
        "print(sorted(banned & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
