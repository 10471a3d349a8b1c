"""Planted faults are caught, and named where they are."""

from __future__ import annotations

import json

import numpy as np
import pytest
from verify_support import SQUARE, check, copy_of, pair, stored_tensor, write_pair

from mobilemoe.checkpoint import open_checkpoint
from mobilemoe.quant import pack, round_bf16, unpack
from mobilemoe.verify import verify
from mobilemoe.verify.columns import ENGINE_EXACT, ENGINE_INT8, TORCH_FAKE, TORCH_FP32
from mobilemoe.verify.engine_columns import EngineColumn
from mobilemoe.verify.files import Weights
from mobilemoe.verify.parity import Absent, compare_columns
from mobilemoe.verify.progress import silent
from mobilemoe.verify.run import pair_check

LAYER = "model.layers.1"
EXPERTS = f"{LAYER}.feed_forward.experts"


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A sound INT4 folder and its source."""
    return write_pair(tmp_path_factory.mktemp("sound"), SQUARE)


@pytest.fixture
def damaged(sound, tmp_path):
    """A copy of the INT4 folder to be damaged."""
    return copy_of(sound[0], tmp_path / "damaged")


def flip_nibbles(folder):
    with stored_tensor(folder, f"{LAYER}.self_attn.q_proj.qweight") as packed:
        packed[:] = (packed << 4) | (packed >> 4)


def swap_gate_and_up(folder):
    for name in ("gate_up_qweight", "gate_up_scale"):
        with stored_tensor(folder, f"{EXPERTS}.{name}") as values:
            values[:] = np.roll(values, values.shape[-1] // 2, axis=-1)


def transpose_expert(folder):
    with stored_tensor(folder, f"{EXPERTS}.down_qweight") as packed:
        packed[2] = pack(np.ascontiguousarray(unpack(packed[2]).T))


def change_router_row(folder):
    with stored_tensor(folder, f"{LAYER}.feed_forward.router.weight") as router_ED:
        router_ED[4] *= np.float32(1.001)


def halve_rope(folder):
    """Order q and k as for rotation by halves: (0, 2, 4, ..., 1, 3, 5, ...) in each head."""
    order = np.r_[0:16:2, 1:16:2]
    for name in ("q_proj", "k_proj"):
        for part in ("qweight", "weight_scale"):
            with stored_tensor(folder, f"{LAYER}.self_attn.{name}.{part}") as values:
                heads = values.reshape(-1, 16, values.shape[-1])
                values[:] = heads[:, order].reshape(values.shape)


SOURCE_FAULTS = {
    flip_nibbles: (f"{LAYER}.self_attn.q_proj.weight", "layer 1 attention"),
    swap_gate_and_up: (f"{EXPERTS}.gate_up_proj", "layer 1 feed_forward"),
    transpose_expert: (f"{EXPERTS}.down_proj", "layer 1 feed_forward"),
    change_router_row: (f"{LAYER}.feed_forward.router.weight", "layer 1 router_logits"),
    halve_rope: (f"{LAYER}.self_attn.q_proj.weight", "layer 1 attention"),
}


@pytest.mark.parametrize("fault", SOURCE_FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_is_named_by_source_and_parity(sound, damaged, fault):
    fault(damaged)
    weight, tensor = SOURCE_FAULTS[fault]
    receipt = verify(damaged, source=sound[1])
    assert not receipt.passed
    bits = check(receipt, "Source", "bits")
    assert bits.status == "fail"
    assert f"first {weight}:" in bits.detail
    found = pair(receipt, "torch fake-quantised -> file").first_failure
    assert found.where == tensor
    assert found.measured > 100 * found.allowed
    assert tensor in check(receipt, "Parity", "torch fake-quantised -> file").detail
    whole = pair(receipt, "torch fake-quantised -> file").end_to_end
    assert whole.max_relative_error > 1e-5  # rounding gives 1e-6
    # The engine reads the same damaged file, and agrees with it.
    assert check(receipt, "Parity", "file -> engine exact").status == "pass"


def test_one_wrong_scale_is_one_wrong_scale(sound, damaged):
    with stored_tensor(damaged, f"{EXPERTS}.gate_up_scale") as scales:
        scales[3, 17, 2] *= np.float16(1.25)
    bits = check(verify(damaged, source=sound[1], quick=True), "Source", "bits")
    assert bits.status == "fail"
    assert bits.detail.startswith("1 of ")
    assert bits.data["differing"] == {f"{EXPERTS}.gate_up_proj": [0, 1]}


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        (f"{EXPERTS}.down_scale", 0x7E00),
        (f"{LAYER}.feed_forward.expert_bias", 0x7F80),
        ("model.norm.weight", 0x7FC0),
    ],
)
def test_nan_and_infinity_are_named(damaged, name, bits):
    with stored_tensor(damaged, name) as values:
        values.view(np.uint16).reshape(-1)[5] = bits
    receipt = verify(damaged)
    assert check(receipt, "Values", "finite").status == "fail"
    assert receipt.first_failure == f"Values: finite: {name} has 1 NaN or infinite values"
    assert receipt.parity is None


def test_a_negative_scale_is_named(damaged):
    with stored_tensor(damaged, f"{EXPERTS}.down_scale") as scales:
        scales[0, 0, 0] *= -1
    found = check(verify(damaged, quick=True), "Values", "scales")
    assert (found.status, found.detail) == ("fail", f"{EXPERTS}.down_scale has 1 negative scales")


def test_a_missing_tensor_is_named(damaged):
    path = damaged / "model.safetensors"
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b'"model.norm.weight"', b'"model.norm.height"'))
    receipt = verify(damaged)
    assert "tensor model.norm.weight is missing" in receipt.first_failure
    assert {s.name: s.checks[0].status for s in receipt.sections[1:]} == {
        "Values": "skip",
        "Tokenizer and chat": "skip",
        "Parity": "skip",
    }


def test_an_extra_byte_is_refused(damaged):
    path = damaged / "model.safetensors"
    path.write_bytes(path.read_bytes() + b"\0")
    receipt = verify(damaged)
    assert check(receipt, "Layout", "tensors").status == "fail"
    assert str(path.stat().st_size) in receipt.first_failure
    assert "sha256" in check(receipt, "Layout", "model.safetensors").data


@pytest.mark.parametrize(
    ("key", "value", "section", "name"),
    [
        ("hidden_act", "relu", "Layout", "config"),
        ("intermediate_size_mlp", 128, "Layout", "tensors"),
        ("rope_theta", 20_000.0, "Source", "config"),
        ("routed_scaling_factor", 1.0, "Source", "config"),
    ],
)
def test_a_wrong_config_value_is_found(sound, damaged, key, value, section, name):
    path = damaged / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    receipt = verify(damaged, source=sound[1])
    found = check(receipt, section, name)
    assert found.status == "fail"
    assert section == "Layout" or found.detail.startswith(f"{key} is {value}")


def compare_with_engine(sound, folder, column):
    """Compare the sound file with an engine that reads `folder` in the given column."""
    weights = Weights(open_checkpoint(sound))
    columns = {TORCH_FP32: Absent("-"), TORCH_FAKE: Absent("-")}
    columns[ENGINE_EXACT] = EngineColumn(sound, "fp32", 16)
    columns[ENGINE_INT8] = EngineColumn(sound, "int8", 16)
    mode = "int8" if column == ENGINE_INT8 else "fp32"
    columns[column] = EngineColumn(folder, mode, 16)
    pairs = compare_columns(weights, columns, list(range(16)), silent)
    return {each.name: each for each in pairs}


@pytest.mark.parametrize("column", [ENGINE_EXACT, ENGINE_INT8])
@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        (f"{LAYER}.self_attn.o_proj.weight_scale", "layer 1 attention"),
        (f"{LAYER}.feed_forward.shared_expert.up_proj.weight_scale", "layer 1 feed_forward"),
    ],
)
def test_a_wrong_engine_is_named_where_it_errs(sound, damaged, column, name, tensor):
    with stored_tensor(damaged, name) as scales:
        scales *= np.float16(1.25)
    pairs = compare_with_engine(sound[0], damaged, column)
    between = "file -> engine exact" if column == ENGINE_EXACT else "engine exact -> engine int8"
    wrong = [c.where for c in pairs[between].comparisons if not c.passed]
    assert wrong == [tensor]


def test_another_set_of_experts_is_found(sound, damaged):
    with stored_tensor(damaged, f"{LAYER}.feed_forward.expert_bias") as bias_E:
        bias_E[:] = np.roll(bias_E, 1)
    pairs = compare_with_engine(sound[0], damaged, ENGINE_EXACT)
    found = pairs["file -> engine exact"].first_failure
    assert found.where == "layer 1 experts"
    assert found.measured > 0.1


def test_a_near_tie_may_fall_either_way(tmp_path):
    int4, _ = write_pair(tmp_path / "pair", SQUARE)
    router = f"{LAYER}.feed_forward.router.weight"
    with stored_tensor(int4, router) as router_ED:
        router_ED[3] = router_ED[1]
    with stored_tensor(int4, f"{LAYER}.feed_forward.expert_bias") as bias_E:
        bias_E[:] = round_bf16(np.float32([2, 0, -2, 0, -2, -2]))  # 0, and 1 or 3
    other = copy_of(int4, tmp_path / "other")
    with stored_tensor(other, router) as router_ED:
        router_ED[3] *= np.float32(1 + 2**-21)
    exact = compare_with_engine(int4, other, ENGINE_EXACT)["file -> engine exact"]
    assert exact.end_to_end.worst_layer == 1
    assert 0 < exact.end_to_end.worst_layer_sets_differ < 1
    assert [c.where for c in exact.comparisons if not c.passed] == []


def test_a_refusal_is_a_failure(sound):
    weights = Weights(open_checkpoint(sound[0]))
    columns = {name: Absent("-") for name in (TORCH_FP32, TORCH_FAKE, ENGINE_INT8)}
    columns[ENGINE_EXACT] = Absent("the engine refuses: it is too large", refused=True)
    pairs = compare_columns(weights, columns, [1, 2, 3], silent)
    found = {each.name: pair_check(each) for each in pairs}
    refused = found["file -> engine exact"]
    assert (refused.status, refused.detail) == (
        "fail",
        "engine exact: the engine refuses: it is too large",
    )
    assert found["torch fake-quantised -> file"].status == "skip"


def test_a_wrong_embedding_shows_end_to_end(sound, damaged):
    with stored_tensor(damaged, "model.embed_tokens.weight_scale") as scales:
        scales[:] = np.roll(scales, 1, axis=0)
    pairs = compare_with_engine(sound[0], damaged, ENGINE_EXACT)
    exact = pairs["file -> engine exact"]
    assert exact.parted
    assert exact.end_to_end.median_cosine < 0.999
