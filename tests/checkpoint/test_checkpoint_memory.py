"""Refusing costs little: every hostile file at most twice its size and 32 MB of memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from checkpoint_support import DATA, SMALLEST, join, write_random

from mobilemoe.checkpoint.header import header_limit, parse_header
from mobilemoe.checkpoint.layout import file_layout
from mobilemoe.errors import CheckpointError

PROBE = """
import sys
from pathlib import Path
from mobilemoe.checkpoint import open_checkpoint
from mobilemoe.errors import CheckpointError

def peak():
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024

open_checkpoint(sys.argv[1]).tensors()  # everything that is only loaded once
Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
before = peak()
try:
    open_checkpoint(sys.argv[2]).tensors()
except CheckpointError as error:
    print(peak() - before, str(error)[:200].replace(chr(10), " "))
"""
BOUND = file_layout(SMALLEST, "int4")
LIMIT = header_limit(BOUND)


def filled(start: bytes, piece: bytes, end: bytes, size: int) -> bytes:
    return start + piece * ((size - len(start) - len(end)) // len(piece)) + end


def tiny_tensors(size: int) -> bytes:
    entry = b'"%08x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
    count = size // (len(entry) + 5)
    return b"{" + b",".join(entry % i for i in range(count)) + b"}"


HEADERS = {
    "tiny tensors, 100 MB": lambda: tiny_tensors(99_000_000),
    "tiny tensors, within the limit": lambda: tiny_tensors(LIMIT - 100),
    "empty lists": lambda: filled(b'{"a":[', b"[],", b"[]]}", LIMIT),
    "empty objects": lambda: filled(b'{"a":[', b"{},", b"{}]}", LIMIT),
    "one long name": lambda: filled(b'{"', b"x", b'":{}}', LIMIT),
    "one long escape": lambda: filled(b'{"', b"\\u4e00", b'":{}}', LIMIT),
    "metadata": lambda: filled(b'{"__metadata__":{"a":"', b"x", b'"}}', LIMIT),
    "dimensions": lambda: filled(b'{"a":{"dtype":"U8","shape":[', b"1,", b"1]}}", LIMIT),
    "depth": lambda: b"[" * LIMIT,
    "digits": lambda: filled(b'{"a":', b"9", b"}", LIMIT),
}
JSON_FILES = {
    "empty lists": lambda size: filled(b'{"a":[', b"[],", b"[]]}", size),
    "empty objects": lambda size: filled(b'{"a":[', b"{},", b"{}]}", size),
    "the same key": lambda size: filled(b"{", b'"":0,', b'"":0}', size),
    "one long text": lambda size: filled(b'{"a":"', b"x", b'"}', size),
    "floats": lambda size: filled(b'{"a":[', b"1.5,", b"0]}", size),
    "depth": lambda size: b"[" * size,
}


@pytest.fixture(scope="module")
def honest(tmp_path_factory) -> Path:
    return write_random(tmp_path_factory.mktemp("honest") / "model").folder


def check_cheap(honest: Path, folder: Path, hostile: Path) -> None:
    """Open `folder` in an interpreter of its own and compare the growth of its peak memory."""
    command = [sys.executable, "-c", PROBE, str(honest), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout, "the file was accepted"
    growth = int(done.stdout.split()[0])
    assert growth <= 2 * hostile.stat().st_size + 32_000_000, done.stdout


needs_clear_refs = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="needs Linux's resettable peak memory"
)


@needs_clear_refs
@pytest.mark.parametrize("name", HEADERS)
def test_hostile_headers_cost_little(honest, tmp_path, name):
    (tmp_path / "config.json").write_bytes((honest / "config.json").read_bytes())
    hostile = tmp_path / "model.safetensors"
    hostile.write_bytes(join(HEADERS[name](), b""))
    check_cheap(honest, tmp_path, hostile)


@needs_clear_refs
@pytest.mark.parametrize("size", [990_000, 50_000_000])
@pytest.mark.parametrize("name", JSON_FILES)
def test_hostile_configs_cost_little(honest, tmp_path, name, size):
    hostile = tmp_path / "config.json"
    hostile.write_bytes(JSON_FILES[name](size))
    check_cheap(honest, tmp_path, hostile)


@needs_clear_refs
@pytest.mark.parametrize("name", JSON_FILES)
def test_hostile_indexes_cost_little(honest, tmp_path, name):
    (tmp_path / "config.json").write_bytes((honest / "config.json").read_bytes())
    hostile = tmp_path / "model.safetensors.index.json"
    hostile.write_bytes(JSON_FILES[name](990_000))
    check_cheap(honest, tmp_path, hostile)


@pytest.mark.parametrize("weight_format", ["int4", "bf16"])
def test_every_truncation_of_a_file_is_refused(tmp_path, weight_format):
    """The header is whole here; `test_checkpoint_damage` cuts through it as well."""
    raw = write_random(tmp_path / "model", weight_format=weight_format).shards[0].read_bytes()
    length = int.from_bytes(raw[:8], "little")
    text, tensors = raw[8 : 8 + length], len(file_layout(SMALLEST, weight_format))
    assert len(parse_header(text, len(raw), tensors, Path("x"))) == tensors
    for size in [*range(8 + length, len(raw)), len(raw) + 1]:
        with pytest.raises(CheckpointError, match=f"has {size} bytes, its header needs {len(raw)}"):
            parse_header(text, size, tensors, Path("x"))


def test_metadata_of_a_megabyte_is_still_honest(tmp_path):
    checkpoint = write_random(tmp_path / "model")
    raw = checkpoint.shards[0].read_bytes()
    length = int.from_bytes(raw[:8], "little")
    notes = b'{"__metadata__":{"notes":"' + b"x" * 1_000_000 + b'"},'
    text = notes + raw[9 : 8 + length]
    checkpoint.shards[0].write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])
    assert set(checkpoint.tensors().entries) == {tensor.name for tensor in BOUND}


def test_the_oracles_headers_are_far_below_the_limit() -> None:
    for name in ("tiny-int4", "tiny-bf16", "tiny-int4-hd64"):
        raw = (DATA / name / "model.safetensors").read_bytes()
        assert int.from_bytes(raw[:8], "little") < 20_000
