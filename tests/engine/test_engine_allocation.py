"""Any one allocation of the engine may fail: an error, nothing lost, and the next call works.

Each sweep runs in an interpreter of its own under tests/native/failing_allocator.cc, which
counts what the engine's code allocates and lets the n-th fail, for every n of a short decode.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from engine_support import SMALL, write_random

COMPILER = next((path for name in ("c++", "g++", "clang++") if (path := shutil.which(name))), None)
SOURCE = Path(__file__).parents[1] / "native" / "failing_allocator.cc"
pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="preloads a library into glibc"),
    pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler"),
]

SWEEP = """
import ctypes, gc, json, sys
from pathlib import Path
import numpy as np
from mobilemoe.engine import _native, load
from mobilemoe.errors import MobileMoEError

folder, library, and_later, step = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
options = json.loads(sys.argv[5])
allocator = ctypes.CDLL(library)
allocator.arm.argtypes = [ctypes.c_long, ctypes.c_int]
allocator.disarm.restype = ctypes.c_long
allocator.watch.argtypes = [ctypes.c_size_t, ctypes.c_size_t]
for line in Path("/proc/self/maps").read_text().splitlines():
    fields = line.split()
    if "x" in fields[1] and len(fields) > 5 and ("/_native." in line or "libstdc++" in line):
        allocator.watch(*(int(end, 16) for end in fields[0].split("-")))

class Use(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks",
        "fordblks", "keepcost")]

libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Use

def used():
    gc.collect()
    use = libc.mallinfo2()
    return use.uordblks + use.hblkhd

STEPS = {
    "load": lambda at: load(folder, context=32, **options),
    "session": lambda at: at["load"].session(),
    "prompt": lambda at: at["session"].append([1, 2, 3, 4, 5]),
    "decode": lambda at: at["session"].append([6]),
    "decode again": lambda at: at["session"].append([7]),
    "all": lambda at: at["session"].append_all([7, 8]),
    "routing": lambda at: at["session"].routing(),
    "rewind": lambda at: at["session"].rewind(3),
    "after": lambda at: at["session"].append([9]),
    "routing after": lambda at: at["session"].routing(),
}

def decode(n):
    "Run all steps. The one in which allocation n fails is repeated, with the same objects."
    at, failed = {}, None
    for name, step in STEPS.items():
        if failed is None:
            allocator.arm(n, and_later)
            try:
                at[name] = step(at)
            except (MobileMoEError, MemoryError) as error:
                failed = name, str(error).splitlines()[0]
            finally:
                n -= allocator.disarm()
            if failed is None:
                continue
        at[name] = step(at)
    return {name: at[name] for name in at if name not in ("load", "session")}, failed

def same(got):
    return all(got[name] is None or np.array_equal(got[name], expected[name]) for name in got)

expected, failed = decode(10**9)
assert failed is None
for n in (1, 50, 100, 10**9):
    decode(n)
# Python's table of interned strings grows now and not in between.
interned = [sys.intern(f"interned {i}") for i in range(30_000)]
before, failures, n = used(), {}, 1
while True:
    got, failed = decode(n)
    assert same(got), (n, failed)
    if failed is None:
        break
    assert failed[1].startswith("not enough memory"), failed
    failures[failed[0]] = failures.get(failed[0], 0) + 1
    n += step
del got, failed
print(json.dumps([failures, n, used() - before]))
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("allocator") / "failing_allocator.so"
    command = [COMPILER, "-std=c++17", "-O1", "-fno-builtin", "-fPIC", "-shared"]
    done = subprocess.run([*command, SOURCE, "-o", path], capture_output=True, text=True)
    if "__libc_" in done.stderr:
        pytest.skip("needs glibc")
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    config = replace(SMALL, num_hidden_layers=2, num_local_experts=6)
    return write_random(tmp_path_factory.mktemp("allocation") / "model", config).folder


@pytest.mark.parametrize(
    ("options", "step", "and_later"),
    [
        ({"threads": 1}, 1, 0),
        ({"threads": 1, "resident": 500_000}, 1, 1),
        ({"threads": 1, "activations": "fp32"}, 3, 1),
        ({"threads": 2}, 7, 0),
    ],
    ids=["int8", "resident", "fp32", "two-threads"],
)
def test_every_failing_allocation_is_an_error_and_nothing_more(
    library, folder, options, step, and_later
):
    arguments = [folder, library, and_later, step, json.dumps(options)]
    # Without its per-thread cache glibc knows exactly what is in use.
    variables = {"LD_PRELOAD": str(library), "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}
    done = subprocess.run(
        [sys.executable, "-c", SWEEP, *map(str, arguments)],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    failures, allocations, grown = json.loads(done.stdout)
    assert allocations > 300
    if step == 1:
        computing = {"prompt", "decode", "decode again", "all", "routing", "after"}
        assert set(failures) >= {"load", "session", *computing}
    assert grown < 4096, f"{grown} bytes lost in {allocations} rounds"
