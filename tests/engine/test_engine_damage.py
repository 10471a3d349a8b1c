"""Damaged model files: every one is refused with a CheckpointError that names the problem."""

from __future__ import annotations

import json
import re
import shutil
import struct

import numpy as np
import pytest
from engine_support import BF16_FOLDER, INT4_FOLDERS, KERNELS

from mobilemoe.engine import load
from mobilemoe.errors import CheckpointError, MobileMoEError

GOOD = INT4_FOLDERS[0] / "model.safetensors"
NORM = "model.norm.weight"
ROUTER = "model.layers.1.feed_forward.router.weight"


@pytest.fixture
def folder(tmp_path):
    shutil.copy(INT4_FOLDERS[0] / "config.json", tmp_path)
    return tmp_path


def split(path=GOOD):
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def join(header, data):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def check_refused(folder, content, message):
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        load(folder, threads=1, context=8)
    assert str(folder) in caught.value.message
    assert caught.value.hint


def test_rebuilt_file_is_accepted(folder):
    (folder / "model.safetensors").write_bytes(join(*split()))
    assert load(folder, threads=1, context=8).logits([1]).shape == (1, 512)


def test_every_truncation_is_refused(folder):
    content = GOOD.read_bytes()
    lengths = {0, 1, 7, 8, 9, 100, 8399, 8400, 8401, len(content) - 1}
    lengths |= set(np.random.default_rng(0).integers(1, len(content), 40).tolist())
    for length in sorted(lengths):
        check_refused(folder, content[:length], "is empty|too short|header length|tensors cover")


def test_missing_file_is_refused(folder):
    with pytest.raises(CheckpointError, match="cannot open"):
        load(folder, threads=1)


def test_trailing_bytes_are_refused(folder):
    check_refused(
        folder, GOOD.read_bytes() + b"x", "tensors cover 803656 bytes, the file holds 803657"
    )


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 100_000_001, 10**6])
def test_huge_header_length_is_refused(folder, length):
    content = struct.pack("<Q", length) + GOOD.read_bytes()[8:]
    check_refused(folder, content, f"header length is {length}; allowed: at most")


def change(name, **fields):
    header, data = split()
    header[name].update(fields)
    return join(header, data)


def test_wrong_dtype_shape_and_offsets_are_named(folder):
    header, _ = split()
    begin, end = header[NORM]["data_offsets"]
    name, expected = re.escape(NORM), r"; expected BF16 \[128\]"
    check_refused(folder, change(NORM, dtype="F16"), rf"{name} is F16 \[128\]{expected}")
    check_refused(folder, change(NORM, dtype="Q7\n"), rf"{name} is Q7\? \[128\]{expected}")
    check_refused(folder, change(NORM, shape=[2, 64]), rf"{name} is BF16 \[2, 64\]{expected}")
    check_refused(folder, change(NORM, shape=[]), rf"{name} is BF16 \[\]{expected}")
    check_refused(
        folder, change(NORM, shape=[2**62] * 8), rf"{name} is BF16 \[4611686018427387904,"
    )
    fault = rf"{name} has data_offsets \[.*\], which do not fit dtype BF16 and shape \[128\]"
    for offsets in ([end, begin], [begin, end - 1], [begin, end + 1], [0, 2**63 - 1]):
        check_refused(folder, change(NORM, data_offsets=offsets), fault)


def test_overlap_and_gap_are_named(folder):
    header, data = split()
    begin, end = header[NORM]["data_offsets"]
    overlapping = change(NORM, data_offsets=[begin - 2, end - 2])
    check_refused(folder, overlapping, f"{re.escape(NORM)} begins at {begin - 2} and overlaps")
    header[NORM]["data_offsets"] = [begin + 2, end + 2]
    gap = f"{re.escape(NORM)} begins at {begin + 2} and leaves a gap"
    check_refused(folder, join(header, data + b"xx"), gap)


def test_a_tensor_beyond_the_end_is_refused(folder):
    header, data = split()
    begin, end = header[NORM]["data_offsets"]
    assert end == len(data)
    header[NORM]["data_offsets"] = [2**63 - 257, 2**63 - 1]
    check_refused(
        folder, join(header, data), f"{re.escape(NORM)} begins at {2**63 - 257} and leaves"
    )
    check_refused(folder, join(header, data[:begin]), "leaves a gap")


def test_every_missing_tensor_is_named(folder):
    intact, data = split()
    for name in intact:
        header = json.loads(json.dumps(intact))
        begin, end = header.pop(name)["data_offsets"]
        for entry in header.values():
            if entry["data_offsets"][0] > begin:
                entry["data_offsets"] = [at - (end - begin) for at in entry["data_offsets"]]
        less = join(header, data[:begin] + data[end:])
        check_refused(folder, less, f"safetensors: tensor {re.escape(name)} is missing")


def test_an_extra_tensor_is_named(folder):
    header, data = split()
    header["surplus"] = {"dtype": "U8", "shape": [3], "data_offsets": [len(data), len(data) + 3]}
    check_refused(folder, join(header, data + b"abc"), "tensor surplus is unknown")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{",
        b"{N",
        b"{N:1}",
        b"{N:{}}",
        b'{N:{"dtype":"U8"}}',
        b'{N:{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}}',
        b'{N:{"dtype":"U8","shape":[1.5],"data_offsets":[0,1]}}',
        b'{N:{"dtype":"U8","shape":[01],"data_offsets":[0,1]}}',
        b'{N:{"dtype":"U8","shape":[99999999999999999999],"data_offsets":[0,1]}}',
        b'{N:{"dtype":"U8","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,1]}}',
        b'{N:{"dtype":"U8","shape":[1],"data_offsets":[0]}}',
        b'{N:{"dtype":"U8","shape":[1],"shape":[1],"data_offsets":[0,1]}}',
        b'{N:{"dtype":"U8","shape":[1],"data_offsets":[0,1],"b":1}}',
        b'{"a\x01":1}',
        b'{"\\ud800":1}',
        b'{"\\q":1}',
        b"{GOOD,}",
        b"{GOOD}x",
        b"{GOOD,GOOD}",
        b'{"__metadata__":{"a":1}}',
        b'{"__metadata__":{},"__metadata__":{}}',
        b'{"__metadata__":{"a":"\\ud800\\ue000"}}',
        b'{"__metadata__":{"a":"\x80"}}',
        b'{"__metadata__":{"a":"\xc0\x80"}}',
        b'{"__metadata__":{"a":"\xe0\x80\x80"}}',
        b'{"__metadata__":{"a":"\xed\xa0\x80"}}',
        b'{"__metadata__":{"a":"\xf4\x90\x80\x80"}}',
        b'{"__metadata__":{"a":"\xff\xbf\xbf\xbf"}}',
        b'{"__metadata__":{"a":"\xe2\x82"}}',
        b'{"__metadata__":{"a":' + b'{"a":' * 10_000,
        b"[" * 100_000,
        b"\xff\xfe",
    ],
)
def test_bad_json_is_refused_with_its_place(folder, text):
    text = text.replace(b"GOOD", b'N:{"dtype":"BF16","shape":[128],"data_offsets":[0,256]}')
    text = text.replace(b"N", b'"model.norm.weight"')
    check_refused(folder, join(text, b""), r"bad JSON at byte \d+")


def test_hostile_names_become_printable(folder):
    entry = b'{"dtype":"U8","shape":[9],"data_offsets":[0,1]}}'
    header = b'{"\xc3\xa9\\n\\u0000' + b"x" * 200 + b'":' + entry
    check_refused(folder, join(header, b"x"), r"tensor \?\?\?\?x{116}\.\.\. is unknown\nhint")
    header = b'{"' + b"x" * 257 + b'":' + entry
    check_refused(folder, join(header, b"x"), "bad JSON at byte 259: a string of more than 256")


def test_metadata_and_spaces_are_allowed(folder):
    header, data = split()
    notes = {
        "format": "pt",
        "long": "x" * 1000,
        "wide": "\x7f\u07ff\u0800\ud7ff\ue000\uffff\U0010ffff",
    }
    header = {"__metadata__": notes, **header}
    for ascii_only in (True, False):
        text = json.dumps(header, indent=2, ensure_ascii=ascii_only).encode() + b"   "
        (folder / "model.safetensors").write_bytes(join(text, data))
        assert load(folder, threads=1, context=8).logits([1]).shape == (1, 512)


def spoil(path, bad, *names):
    """The file's bytes with every BF16 (or the bytes of every F32) of `names` set to `bad`."""
    header, data = split(path)
    for name in names:
        begin, end = header[name]["data_offsets"]
        data = data[:begin] + bad * ((end - begin) // len(bad)) + data[end:]
    return join(header, data)


@pytest.mark.parametrize("source", [*INT4_FOLDERS[:1], BF16_FOLDER], ids=lambda path: path.name)
def test_nan_weights_never_break_the_routing(folder, source):
    shutil.copy(source / "config.json", folder)
    names = (ROUTER, "model.layers.1.feed_forward.expert_bias")
    content = spoil(source / "model.safetensors", b"\xff", *names)
    (folder / "model.safetensors").write_bytes(content)
    for kernel in KERNELS:
        session = load(folder, threads=2, context=8, kernel=kernel).session()
        assert np.isnan(session.append([1, 2, 3])).all()
        assert session.routing()[1].tolist() == [[0, 1, 2, 3]] * 3


# The upper bytes of a number that means the same in every format of a file.
BAD = {
    "nan": {"BF16": b"\xff\xff", "F16": b"\xff\xff", "F32": b"\xff\xff\xff\xff"},
    "inf": {"BF16": b"\x80\x7f", "F16": b"\x00\x7c", "F32": b"\x00\x00\x80\x7f"},
    "-inf": {"BF16": b"\x80\xff", "F16": b"\x00\xfc", "F32": b"\x00\x00\x80\xff"},
    "tiny": {"BF16": b"\x01\x00", "F16": b"\x01\x00", "F32": b"\x01\x00\x00\x00"},
}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("source", [INT4_FOLDERS[0], BF16_FOLDER], ids=lambda path: path.name)
def test_bad_numbers_never_pick_an_expert_out_of_range(folder, source, bad, kernel):
    """In any tensor, one token at a time and several; a spoiled text is never written."""
    shutil.copy(source / "config.json", folder)
    file = source / "model.safetensors"
    for name, entry in split(file)[0].items():
        if entry["dtype"] not in BAD[bad]:
            continue
        content = spoil(file, BAD[bad][entry["dtype"]], name)
        (folder / "model.safetensors").write_bytes(content)
        model = load(folder, threads=1, context=16, kernel=kernel)
        session = model.session()
        for ids in ([1, 2, 3, 4, 5, 6], [7]):
            logits_V = session.append(ids)
            chosen_LTK = session.routing()
            assert chosen_LTK.min() >= 0 and chosen_LTK.max() < 12, name
            assert (np.diff(np.sort(chosen_LTK, axis=-1)) > 0).all(), name  # no expert twice
        if not np.isfinite(logits_V.max()):
            with pytest.raises(MobileMoEError, match="computed a logit of"):
                list(model.generate([1, 2, 3, 4, 5, 6, 7], max_new_tokens=1))


@pytest.mark.parametrize("source", [*INT4_FOLDERS, BF16_FOLDER], ids=lambda path: path.name)
def test_tensors_at_odd_addresses_give_the_same_bits(folder, source):
    shutil.copy(source / "config.json", folder)
    header, data = split(source / "model.safetensors")
    text = json.dumps(header).encode()
    odd = text + b" " * (1 + len(text) % 2)  # odd length: every tensor moves to an odd address
    (folder / "model.safetensors").write_bytes(join(odd, data))
    for kernel in KERNELS:
        moved, plain = (
            load(path, 1, 8, kernel=kernel).logits([3, 1, 2]) for path in (folder, source)
        )
        assert moved.tobytes() == plain.tobytes()


def with_routers_as(dtype, widen):
    """The BF16 file with every router stored as `dtype`: `widen` of its bits."""
    header, data = split(BF16_FOLDER / "model.safetensors")
    pieces, position = [], 0
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        piece = data[begin:end]
        if name.endswith("router.weight"):
            piece = widen(np.frombuffer(piece, "<u2")).tobytes()
            entry["dtype"] = dtype
        entry["data_offsets"] = [position, position + len(piece)]
        pieces.append(piece)
        position += len(piece)
    return join(header, b"".join(pieces))


def test_a_bf16_file_may_hold_its_router_in_f32(folder):
    shutil.copy(BF16_FOLDER / "config.json", folder)
    f32 = with_routers_as("F32", lambda bits: bits.astype("<u4") << 16)
    (folder / "model.safetensors").write_bytes(f32)
    wide, plain = (load(path, 1, 8).logits([5, 6]) for path in (folder, BF16_FOLDER))
    assert wide.tobytes() == plain.tobytes()
    f16 = with_routers_as("F16", lambda bits: bits)
    check_refused(
        folder, f16, r"router.weight is F16 \[12, 128\]; expected BF16 or F32 \[12, 128\]"
    )


def test_weights_of_the_other_format_are_refused(folder):
    bf16 = (BF16_FOLDER / "model.safetensors").read_bytes()
    check_refused(folder, bf16, "holds BF16 weights where INT4 is expected")
    shutil.copy(BF16_FOLDER / "config.json", folder)
    check_refused(folder, GOOD.read_bytes(), "holds INT4 weights where BF16 is expected")
