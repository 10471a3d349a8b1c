"""Sound checkpoints of every shape pass, with every column that is possible."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from verify_support import DATA, SHAPES, check, copy_of, pair, stored_tensor, write_pair

from mobilemoe import CheckpointError, MobileMoEError
from mobilemoe.checkpoint import convert_checkpoint, open_checkpoint
from mobilemoe.verify import verify

INT4_PAIRS = (
    "torch fp32 -> torch fake-quantised",
    "torch fake-quantised -> file",
    "file -> engine exact",
    "engine exact -> engine int8",
)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """The INT4 and BF16 folders of each shape."""
    folder = tmp_path_factory.mktemp("pairs")
    return {name: write_pair(folder / name, config) for name, config in SHAPES.items()}


@pytest.mark.parametrize("name", ["tiny-int4", "tiny-int4-hd64"])
def test_the_int4_test_data_pass(name):
    receipt = verify(DATA / name)
    assert receipt.passed, receipt.first_failure
    assert pair(receipt, INT4_PAIRS[0]).skipped.startswith("torch fp32: needs --source")
    for each in INT4_PAIRS[1:]:
        assert check(receipt, "Parity", each).status == "pass"
    assert check(receipt, "Tokenizer and chat", "tokenizer").status == "skip"


def test_the_bf16_test_data_pass():
    receipt = verify(DATA / "tiny-bf16")
    assert receipt.passed, receipt.first_failure
    assert check(receipt, "Parity", "torch fp32 -> torch fake-quantised").status == "info"
    assert check(receipt, "Parity", "torch fp32 -> file").status == "pass"
    assert check(receipt, "Parity", "file -> engine exact").status == "pass"
    int8 = check(receipt, "Parity", "engine exact -> engine int8")
    assert (int8.status, int8.detail) == ("skip", "engine int8: not for BF16 weights")


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_passes_with_its_source(pairs, shape):
    int4, source = pairs[shape]
    receipt = verify(int4, source=source, tokens=24)
    assert receipt.passed, receipt.first_failure
    assert check(receipt, "Source", "bits").status == "pass"
    assert all(check(receipt, "Parity", each).status == "pass" for each in INT4_PAIRS)
    assert verify(source, tokens=24).passed


@pytest.mark.parametrize("shape", SHAPES)
def test_the_noise_model_fits(pairs, shape):
    int4, source = pairs[shape]
    # Rounding is known up to the order of additions, the other two up to sampling.
    ranges = {"rounding": (0.25, 1.8), "int8": (0.8, 1.25), "int4": (0.8, 1.25)}
    for each in verify(int4, source=source).parity.pairs:
        low, high = ranges[each.kind]
        for comparison in each.comparisons:
            routing = comparison.tensor in ("router_logits", "experts")
            if (routing and each.kind != "rounding") or comparison.tensor == "experts":
                assert comparison.measured == 0  # the same router on the same input
            else:
                assert low < comparison.ratio < high, (each.name, comparison)


def test_neighbours_that_are_exact_choose_the_same_experts(pairs):
    receipt = verify(pairs["moe"][0])
    for name in INT4_PAIRS[1:3]:
        whole = pair(receipt, name).end_to_end
        assert (whole.sets_differ, whole.argmax_agreement) == (0, 1)
        assert whole.max_relative_error < 1e-5
    int8 = pair(receipt, INT4_PAIRS[3]).end_to_end
    assert int8.max_relative_error > 1e-4


def test_a_dense_model_has_no_sets(pairs):
    receipt = verify(pairs["dense"][0])
    for name in INT4_PAIRS[1:]:
        assert pair(receipt, name).end_to_end.sets_differ is None


def test_layout_counts_every_byte(pairs):
    int4, _ = pairs["interleaved"]
    config = open_checkpoint(int4).config
    data = check(verify(int4, quick=True), "Layout", "bytes").data
    assert data["tensor_bytes"] == data["planned_bytes"] == config.weight_bytes("int4")
    assert data["file_bytes"] == (int4 / "model.safetensors").stat().st_size
    assert data["header_bytes"] == data["file_bytes"] - data["tensor_bytes"]


def test_quick_leaves_parity_out(pairs):
    receipt = verify(pairs["moe"][0], quick=True)
    assert receipt.passed
    assert receipt.parity is None
    assert receipt.sections[-1].checks[0].detail == "left out: quick"


def test_random_ids_follow_the_seed(pairs):
    int4, _ = pairs["moe"]
    first, again, other = (verify(int4, tokens=8, seed=seed) for seed in (1, 1, 2))
    assert first.to_dict()["parity"] == again.to_dict()["parity"]
    assert first.to_dict()["parity"] != other.to_dict()["parity"]


def test_the_receipt_is_json(pairs):
    document = json.loads(json.dumps(verify(pairs["moe"][0], tokens=4).to_dict(), allow_nan=False))
    assert document["passed"] is True
    assert document["parity"]["pairs"][1]["worst"]["ratio"] > 0
    assert [section["name"] for section in document["sections"]] == [
        "Layout",
        "Values",
        "Tokenizer and chat",
        "Parity",
    ]


@pytest.mark.parametrize("tokens", [0, 65, True])
def test_rejects_a_number_of_tokens(pairs, tokens):
    with pytest.raises(MobileMoEError, match=r"tokens is .*; allowed: 1 to 64"):
        verify(pairs["moe"][0], tokens=tokens)


def test_rejects_a_missing_folder(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint folder"):
        verify(tmp_path / "nothing")


def test_rejects_what_cannot_be_a_source(pairs):
    int4, source = pairs["moe"]
    with pytest.raises(CheckpointError, match="the source holds int4 weights; allowed: bf16"):
        verify(int4, source=int4)
    with pytest.raises(MobileMoEError, match="compared with int4 weights only"):
        verify(source, source=source)


def test_progress_ends_every_stage(pairs):
    int4, source = pairs["moe"]
    seen = {}
    verify(
        int4, source=source, progress=lambda stage, done, total: seen.update({stage: (done, total)})
    )
    assert all(done == total for done, total in seen.values())
    assert {"hashing files", "reading values", "comparing layers"} <= set(seen)


def test_the_model_hash_ignores_the_files_shape(pairs, tmp_path):
    int4, _ = pairs["moe"]
    convert_checkpoint(open_checkpoint(int4), tmp_path / "shards", "int4", 40_000)
    whole, parts = verify(int4, quick=True), verify(tmp_path / "shards", quick=True)
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    hashes = [check(receipt, "Layout", "model").data["sha256"] for receipt in (whole, parts)]
    assert hashes[0] == hashes[1]


def test_the_model_hash_sees_one_bit(pairs, tmp_path):
    int4, _ = pairs["moe"]
    changed = copy_of(int4, tmp_path / "changed")
    with stored_tensor(changed, "model.norm.weight") as norm_D:
        norm_D[3] ^= np.uint16(1)
    hashes = [
        check(verify(folder, quick=True), "Layout", "model").data["sha256"]
        for folder in (int4, changed)
    ]
    assert hashes[0] != hashes[1]


def in_a_hub_cache(folder, root, digest):
    """Return a snapshot of `folder` as the hub's cache keeps it, its weights named `digest`."""
    snapshot, blobs = root / "models--a--b" / "snapshots" / "c", root / "models--a--b" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    shutil.copy(folder / "config.json", snapshot)
    shutil.copy(folder / "model.safetensors", blobs / digest)
    (snapshot / "model.safetensors").symlink_to(f"../../blobs/{digest}")
    return snapshot


def test_the_hubs_hash_is_compared(pairs, tmp_path):
    int4, _ = pairs["moe"]
    digest = hashlib.sha256((int4 / "model.safetensors").read_bytes()).hexdigest()
    right = verify(in_a_hub_cache(int4, tmp_path / "right", digest), quick=True)
    assert check(right, "Layout", "model.safetensors").status == "pass"
    wrong = verify(in_a_hub_cache(int4, tmp_path / "wrong", digest[::-1]), quick=True)
    found = check(wrong, "Layout", "model.safetensors")
    assert found.status == "fail"
    assert digest in found.detail and digest[::-1] in found.detail
    assert check(verify(int4, quick=True), "Layout", "model.safetensors").status == "info"


def test_shards_pass_with_every_column(pairs, tmp_path):
    int4, source = pairs["moe"]
    convert_checkpoint(open_checkpoint(int4), tmp_path / "int4", "int4", 40_000)
    convert_checkpoint(open_checkpoint(source), tmp_path / "bf16", "bf16", 100_000)
    receipt = verify(tmp_path / "int4", source=tmp_path / "bf16")
    assert receipt.passed, receipt.first_failure
    assert all(check(receipt, "Parity", each).status == "pass" for each in INT4_PAIRS)


def test_another_total_size_of_an_index_is_a_fact(pairs, tmp_path):
    convert_checkpoint(open_checkpoint(pairs["moe"][0]), tmp_path / "shards", "int4", 40_000)
    index = tmp_path / "shards" / "model.safetensors.index.json"
    values = json.loads(index.read_text())

    def found(metadata):
        index.write_text(json.dumps({**values, "metadata": metadata}))
        receipt = verify(tmp_path / "shards", quick=True)
        assert receipt.passed, receipt.first_failure
        checks = receipt.sections[0].checks
        return [(each.status, each.data) for each in checks if each.name == index.name]

    size = values["metadata"]["total_size"]
    assert found({"total_size": size + 1}) == [
        ("info", {"total_size": size + 1, "tensor_bytes": size})
    ]
    for silent in ({"total_size": size}, {"total_size": "many"}, {}, None):
        assert found(silent) == []


def test_text_is_checked_without_weights(pairs, tmp_path):
    """As in a folder whose download was cut short."""
    half = copy_of(pairs["moe"][0], tmp_path / "half")
    (half / "model.safetensors").unlink()
    (half / "tokenizer.json").write_text("{}")
    receipt = verify(half)
    assert receipt.first_failure.startswith("Layout: tensors: ")
    assert check(receipt, "Tokenizer and chat", "tokenizer").status == "fail"
    for section in ("Values", "Parity"):
        assert check(receipt, section, "all").detail == "the layout is wrong"


def test_torch_is_imported_in_one_file_only():
    room = Path(__file__).parents[2] / "src" / "mobilemoe" / "verify"
    users = [path.name for path in room.glob("*.py") if "import torch" in path.read_text()]
    assert users == ["torch_columns.py"]
