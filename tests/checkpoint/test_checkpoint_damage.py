"""Damaged weight files: one CheckpointError that names the file, never anything else."""

from __future__ import annotations

import json
import os
import random

import numpy as np
import pytest
from checkpoint_support import DATA, SMALLEST, join, split, weights_file, write_random

from mobilemoe.checkpoint import Checkpoint, open_checkpoint
from mobilemoe.checkpoint.layout import file_layout
from mobilemoe.errors import CheckpointError

NORM = "model.norm.weight"
Q = "model.layers.0.self_attn.q_proj.qweight"
ROUTER = "model.layers.0.feed_forward.router.weight"


@pytest.fixture
def checkpoint(tmp_path) -> Checkpoint:
    return write_random(tmp_path / "model")


def check_refused(checkpoint: Checkpoint, *words: str) -> CheckpointError:
    """Open the weights, expect a refusal with every one of `words`, and return it."""
    with pytest.raises(CheckpointError) as caught:
        checkpoint.tensors()
    for word in (str(weights_file(checkpoint)), *words):
        assert word in str(caught.value), (word, str(caught.value))
    return caught.value


def damage(checkpoint: Checkpoint, edit, extra: bytes = b"") -> None:
    """Replace the header by what `edit` makes of it."""
    header, data = split(weights_file(checkpoint).read_bytes())
    edited = edit(header)
    weights_file(checkpoint).write_bytes(join(header if edited is None else edited, data + extra))


def dumps(header: object) -> bytes:
    return json.dumps(header).encode()


def set_entry(name: str, **values):
    """Return an edit that overwrites fields of one tensor's entry."""
    return lambda header: header[name].update(values)


def test_an_unchanged_rewrite_opens(checkpoint):
    damage(checkpoint, lambda header: None)
    assert set(checkpoint.tensors().entries) == {t.name for t in file_layout(SMALLEST, "int4")}


def test_metadata_and_another_order_of_entries_are_no_damage(checkpoint):
    damage(checkpoint, lambda h: {"__metadata__": {"format": "pt"}, **dict(reversed(h.items()))})
    names = {name for name, _ in [(w.name, v) for w, v in checkpoint.read_weights()]}
    assert names == {weight.name for weight in SMALLEST.weights()}


def test_a_shifted_header_gives_the_same_weights(checkpoint):
    """Tensors may lie at odd addresses: the header's length is not always a multiple of 8."""
    before = [values for _, values in checkpoint.read_weights()]
    for extra in range(1, 9):
        header, data = split(weights_file(checkpoint).read_bytes())
        header["__metadata__"] = {"pad": "x" * extra}
        weights_file(checkpoint).write_bytes(join(header, data))
        after = [values for _, values in checkpoint.read_weights()]
        assert all(np.array_equal(a, b) for a, b in zip(after, before, strict=True))
        assert checkpoint.tensors().read(ROUTER).flags.aligned


def test_a_missing_file(checkpoint):
    weights_file(checkpoint).unlink()
    check_refused(checkpoint, "cannot read", "No such file")


def test_a_folder_in_place_of_the_file(checkpoint):
    weights_file(checkpoint).unlink()
    weights_file(checkpoint).mkdir()
    check_refused(checkpoint, "cannot read")


def test_truncation_at_every_position_of_the_header_and_many_of_the_data(checkpoint):
    size = weights_file(checkpoint).stat().st_size
    entries = checkpoint.tensors().entries.values()
    first = min(entry.start for entry in entries)
    borders = {edge + d for entry in entries for edge in (entry.start, entry.stop) for d in (-1, 0)}
    positions = sorted({*range(first), *range(first, size, 61), *borders, size - 1} - {size})
    for position in reversed(positions):  # from the end, so that each cut is made in place
        os.truncate(weights_file(checkpoint), position)
        check_refused(checkpoint)


def test_bytes_after_the_end(checkpoint):
    size = weights_file(checkpoint).stat().st_size
    damage(checkpoint, lambda header: None, extra=b"\0")
    check_refused(checkpoint, "bytes, its header needs")
    assert weights_file(checkpoint).stat().st_size != size


@pytest.mark.parametrize("length", [2**64 - 1, 2**63, 100_000_001, 50_000])
def test_a_header_longer_than_the_file(checkpoint, length):
    raw = weights_file(checkpoint).read_bytes()
    weights_file(checkpoint).write_bytes(length.to_bytes(8, "little") + raw[8:])
    check_refused(checkpoint, f"header says {length} bytes, the file has {len(raw)}")


def test_a_header_beyond_the_limit_is_not_read(checkpoint):
    """A sparse file of 200 MB: its length would fit, its header is refused unread."""
    with weights_file(checkpoint).open("wb") as file:
        file.write((150_000_000).to_bytes(8, "little"))
        file.truncate(200_000_000)
    check_refused(checkpoint, "header says 150000000 bytes")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" ",
        b"{",
        b"[]",
        b"null",
        b"3",
        b'"text"',
        b"\xff\xfe\xfd",
        b"\x00" * 16,
        b"{}garbage",
        b"[" * 50_000,
        b'{"a": ' * 20_000,
        b'{"a": ' + b"9" * 5000 + b"}",
    ],
    ids=lambda text: repr(text[:12]),
)
def test_a_header_that_is_no_json_object(checkpoint, text):
    damage(checkpoint, lambda header: text)
    check_refused(checkpoint, "header")


def test_duplicate_keys(checkpoint):
    def doubled(header):
        entry = b'"%s": {"dtype":"BF16","shape":[32],"data_offsets":[0,64]}' % NORM.encode()
        return b"{" + entry + b"," + entry + b"}"

    damage(checkpoint, doubled)
    check_refused(checkpoint, "a key stands twice")


def test_duplicate_keys_within_an_entry(checkpoint):
    entry = b'"dtype":"U8","dtype":"F16","shape":[],"data_offsets":[0,0]'
    damage(checkpoint, lambda header: b'{"x":{' + entry + b"}}")
    check_refused(checkpoint, "header entry of 'x' is malformed; needed:", "each once")


def test_duplicate_keys_within_metadata_are_nobodys_business(checkpoint):
    damage(checkpoint, lambda header: b'{"__metadata__":{"a":"b","a":"c"},' + dumps(header)[1:])
    assert checkpoint.tensors().tensor_bytes > 0


@pytest.mark.parametrize("metadata", [b'{"\\ud800":"a"}', b'{"a":"\\udc00"}', b'{"a":1}', b"[]"])
def test_metadata_that_is_no_text(checkpoint, metadata):
    damage(checkpoint, lambda header: b'{"__metadata__":' + metadata + b"," + dumps(header)[1:])
    check_refused(checkpoint, "__metadata__ is malformed")


@pytest.mark.parametrize(
    "entry",
    [
        None,
        3,
        "text",
        [],
        {},
        {"dtype": "BF16", "shape": [32]},
        {"dtype": "BF16", "data_offsets": [0, 64]},
        {"shape": [32], "data_offsets": [0, 64]},
        {"dtype": "BF16", "shape": None, "data_offsets": [0, 64]},
        {"dtype": "BF16", "shape": 32, "data_offsets": [0, 64]},
        {"dtype": "BF16", "shape": [32], "data_offsets": None},
        {"dtype": "BF16", "shape": [32], "data_offsets": 64},
        {"dtype": "BF16", "shape": [32], "data_offsets": [64]},
        {"dtype": "BF16", "shape": [32], "data_offsets": [0, 32, 64]},
    ],
    ids=repr,
)
def test_malformed_entries(checkpoint, entry):
    damage(checkpoint, lambda header: header.update({NORM: entry}))
    check_refused(checkpoint, f"header entry of {NORM!r} is malformed")


@pytest.mark.parametrize("bad", [-1, 1.0, "32", True, None, [32], float("nan")], ids=repr)
def test_sizes_and_offsets_that_are_no_counts(checkpoint, bad):
    header, _ = split(weights_file(checkpoint).read_bytes())
    start, stop = header[NORM]["data_offsets"]
    intact = weights_file(checkpoint).read_bytes()
    for values in ({"shape": [bad]}, {"data_offsets": [bad, stop]}, {"data_offsets": [start, bad]}):
        weights_file(checkpoint).write_bytes(intact)
        damage(checkpoint, set_entry(NORM, **values))
        check_refused(checkpoint, f"{NORM} has a negative or non-integer size")


def test_a_shape_of_absurd_size(checkpoint):
    damage(checkpoint, set_entry(NORM, shape=[2**62, 2**62]))
    check_refused(checkpoint, NORM, "needs")


@pytest.mark.parametrize("dtype", ["F64", "I8", "bf16", "", 7, None, ["BF16"], {"a": 1}], ids=repr)
def test_foreign_dtypes(checkpoint, dtype):
    damage(checkpoint, set_entry(NORM, dtype=dtype))
    check_refused(checkpoint, f"{NORM} is {dtype!r}; allowed: U8, F16, BF16, F32")


def test_a_dtype_or_shape_that_does_not_fit_the_bytes(checkpoint):
    damage(checkpoint, set_entry(NORM, dtype="F32"))
    check_refused(checkpoint, f"{NORM} has 64 bytes, F32 [32] needs 128")
    damage(checkpoint, set_entry(NORM, dtype="BF16", shape=[31]))
    check_refused(checkpoint, f"{NORM} has 64 bytes, BF16 [31] needs 62")


def test_a_dtype_of_the_right_size_is_still_the_wrong_one(checkpoint):
    damage(checkpoint, set_entry(NORM, dtype="F16"))
    check_refused(checkpoint, f"{NORM} is F16 [32]; allowed: BF16 [32]")


def test_a_bf16_router_belongs_to_bf16_files_only(tmp_path, checkpoint):
    header, _ = split(weights_file(checkpoint).read_bytes())
    E, D = header[ROUTER]["shape"]
    damage(checkpoint, set_entry(ROUTER, dtype="BF16", shape=[2 * E, D]))
    check_refused(checkpoint, f"{ROUTER} is BF16 [{2 * E}, {D}]; allowed: F32 [{E}, {D}]")


@pytest.mark.parametrize("shape", [[16, 32], [512], [32, 16, 1], [1, 32, 16]])
def test_another_shape_of_the_same_size(checkpoint, shape):
    damage(checkpoint, set_entry(Q, shape=shape))
    check_refused(checkpoint, f"{Q} is U8 {shape}; allowed: U8 [32, 16]")


def test_a_gap(checkpoint):
    def move(header):
        for entry in header.values():
            if entry["data_offsets"][0] >= header[NORM]["data_offsets"][0]:
                entry["data_offsets"] = [offset + 2 for offset in entry["data_offsets"]]

    damage(checkpoint, move, extra=b"\0\0")
    check_refused(checkpoint, "starts at byte", "expected")


def test_an_overlap(checkpoint):
    header, _ = split(weights_file(checkpoint).read_bytes())
    twin = header["model.layers.0.self_attn.k_proj.qweight"]["data_offsets"]
    damage(checkpoint, set_entry("model.layers.0.self_attn.v_proj.qweight", data_offsets=twin))
    check_refused(checkpoint, "starts at byte", "expected")


def test_an_overlap_that_leaves_no_gap(checkpoint):
    header, data = split(weights_file(checkpoint).read_bytes())
    assert header[NORM]["data_offsets"] == [len(data) - 64, len(data)]
    header[NORM]["data_offsets"] = [0, 64]  # within the embedding; its own bytes are gone
    weights_file(checkpoint).write_bytes(join(header, data[:-64]))
    check_refused(checkpoint, "starts at byte", "expected")


def test_a_tensor_beyond_the_end(checkpoint):
    header, data = split(weights_file(checkpoint).read_bytes())
    last = max(header, key=lambda name: header[name]["data_offsets"])
    start, stop = header[last]["data_offsets"]
    assert stop == len(data)
    damage(checkpoint, set_entry(last, data_offsets=[start + 4096, stop + 4096]))
    check_refused(checkpoint, last, "starts at byte")


def test_every_missing_tensor_is_named(checkpoint):
    intact = weights_file(checkpoint).read_bytes()
    header, _ = split(intact)
    for name in header:
        weights_file(checkpoint).write_bytes(intact)
        damage(checkpoint, lambda h, name=name: h.update({f"{name}.moved": h.pop(name)}))
        check_refused(checkpoint, f"tensor {name} is missing")


def test_unexpected_tensors_are_named_and_counted(checkpoint):
    extra = {"dtype": "U8", "shape": [0]}

    def add(header):
        end = max(entry["data_offsets"][1] for entry in header.values())
        header["zz.more"] = header["aa.more"] = {**extra, "data_offsets": [end, end]}

    damage(checkpoint, add)
    check_refused(checkpoint, "unexpected tensor aa.more (2 in all)")


def test_weights_of_another_config(tmp_path):
    other = open_checkpoint(DATA / "tiny-int4")
    mixed = Checkpoint(DATA / "tiny-int4-hd64", other.config, "int4")
    with pytest.raises(CheckpointError, match="do not belong together"):
        mixed.tensors()
    as_bf16 = Checkpoint(DATA / "tiny-int4", other.config, "bf16")
    with pytest.raises(CheckpointError, match=r"model.embed_tokens.weight is missing"):
        as_bf16.tensors()


def test_no_changed_header_byte_raises_anything_else(checkpoint):
    """One byte of the header becomes another: the file still opens, or is refused."""
    raw = bytearray(weights_file(checkpoint).read_bytes())
    end = 8 + int.from_bytes(raw[:8], "little")
    rng = random.Random(0)
    refusals = 0
    positions = [*range(300), *range(300, end, 7)]
    for position in positions:
        changed = raw.copy()
        changed[position] = rng.choice(b'"{}[],:09-.eN\\\x00\xff') ^ (position < 8)
        weights_file(checkpoint).write_bytes(changed)
        try:
            checkpoint.tensors()
        except CheckpointError:
            refusals += 1
    assert refusals > 0.9 * len(positions)
