"""The native reader on bytes: every truncation, every changed byte, and what refusing costs."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from reader_support import FORMATS, TINY, halves, model_file, read, refusal, with_length

from mobilemoe.engine._native import ModelFileError, testing


@pytest.mark.parametrize("weight_format", FORMATS)
def test_every_truncation_and_every_longer_file_is_refused(weight_format):
    raw = model_file(weight_format=weight_format)
    read(raw, weight_format=weight_format)
    accepted = [n for n in range(len(raw)) if refusal(raw[:n], weight_format=weight_format) is None]
    assert accepted == []
    for more in range(1, 20):
        message = refusal(raw + bytes(more), weight_format=weight_format)
        assert message is not None and "the file holds" in message


def test_every_cut_of_the_header_is_refused():
    """The same with a length that fits what is left of the header."""
    text, data = halves(model_file())
    for length in range(len(text.rstrip())):
        message = refusal(with_length(text[:length], data))
        assert message is not None and "bad JSON at byte" in message, length


def test_a_changed_byte_is_accepted_or_refused_with_a_short_message():
    raw = model_file()
    end = len(raw) - len(halves(raw)[1])
    rng = random.Random(0)
    refused = 0
    for position in range(end):
        changed = bytearray(raw)
        changed[position] ^= 1 << rng.randrange(8)
        message = refusal(bytes(changed))
        refused += message is not None
        assert message is None or len(message) < 600
    assert refused > 0.95 * end


def test_a_product_that_overflows_is_refused():
    size = 2**31 - 32
    sizes = ("vocab_size", "hidden_size", "num_local_experts", "intermediate_size")
    name = "model.layers.1.feed_forward.experts.down_qweight"
    entry = {"dtype": "U8", "shape": [size, size, size // 2], "data_offsets": [0, 2**62]}
    raw = with_length(json.dumps({name: entry}).encode())
    with pytest.raises(ModelFileError, match="do not fit dtype U8 and shape"):
        testing.read_model([raw], asdict(TINY) | dict.fromkeys(sizes, size), "int4")


def test_more_layers_than_any_model_has_are_refused():
    with pytest.raises(ValueError, match="num_hidden_layers is 1025; allowed: 1 to 1024"):
        testing.read_model([model_file()], asdict(TINY) | {"num_hidden_layers": 1025}, "int4")


def filled(start: bytes, piece: bytes, end: bytes, size: int = 40_000_000) -> bytes:
    return start + piece * ((size - len(start) - len(end)) // len(piece)) + end


TINY_TENSOR = b'"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
NORM = b'"model.norm.weight":{"dtype":"BF16","shape":[32],"data_offsets":[0,64]}'
Q = b'"model.layers.%d.self_attn.q_proj.qweight":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
HEADERS = {
    "tiny tensors": lambda: filled(b"{", TINY_TENSOR + b",", b""),
    "the same known tensor": lambda: filled(b"{", NORM + b",", b""),
    "known tensors of other layers": lambda: b"{" + b",".join(Q % i for i in range(400_000)) + b"}",
    "one metadata text": lambda: filled(b'{"__metadata__":{"a":"', b"x", b'"}}'),
    "metadata entries": lambda: filled(b'{"__metadata__":{', b'"a":"b",', b'"a":"b"}}'),
    "metadata escapes": lambda: filled(b'{"__metadata__":{"a":"', b"\\u4e00", b'"}}'),
    "one metadata name": lambda: filled(b'{"__metadata__":{"', b"\xe4\xb8\x80", b'":""}}'),
    "one name": lambda: filled(b'{"', b"x", b'":{}}'),
    "one dtype": lambda: filled(b'{"model.norm.weight":{"dtype":"', b"x", b'"}}'),
    "one key": lambda: filled(b'{"model.norm.weight":{"', b"x", b'":1}}'),
    "dimensions": lambda: filled(b'{"model.norm.weight":{"shape":[', b"1,", b"1]}}"),
    "digits": lambda: filled(b'{"model.norm.weight":{"shape":[', b"9", b"]}}"),
    "zeros": lambda: filled(b'{"model.norm.weight":{"shape":[', b"0", b"]}}"),
    "space": lambda: filled(b"{", b" ", b"}"),
    "depth": lambda: filled(b"", b"[", b""),
    "depth in metadata": lambda: filled(b'{"__metadata__":', b'{"a":', b""),
}

PROBE = """
import sys
from dataclasses import asdict
from pathlib import Path
from reader_support import TINY, model_file, with_length
from test_native_reader import HEADERS
from mobilemoe.engine._native import Model, ModelFileError

def peak():
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024

def open_model():
    return Model([str(path)], asdict(TINY), 1, "auto", "int4")

path = Path(sys.argv[1])
path.write_bytes(model_file())
open_model()  # everything that is only loaded once
for name, header in HEADERS.items():
    path.write_bytes(with_length(header()))
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = peak()
    try:
        open_model()
    except ModelFileError as error:
        fault = str(error).partition(": ")[2][:100].partition(chr(10))[0]
        print(peak() - before, path.stat().st_size, name, fault, sep="|")
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's memory peak")
def test_refusing_a_hostile_header_costs_at_most_its_size_and_a_little(tmp_path):
    command = [sys.executable, "-c", PROBE, str(tmp_path / "model.safetensors")]
    environment = {"PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, env=environment)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split("|")[2] for line in lines] == list(HEADERS)
    for line in lines:
        growth, size = map(int, line.split("|")[:2])
        assert growth <= 1.1 * size + 8_000_000, line  # the goal: twice the size and 32 MB
