"""A model file that shrinks or changes while it is in use: an error, never a bus error.

Every test runs in an interpreter of its own, because the failure it guards against ends it.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from engine_support import SMALL, write_random

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="pages and signals as on Linux")

PRELUDE = """
import faulthandler, mmap, os, random, shutil, signal, sys, tempfile, threading, time
from pathlib import Path
import numpy as np
from mobilemoe.engine import load
from mobilemoe.errors import CheckpointError

folder = Path(sys.argv[1])
weights = folder / "model.safetensors"
intact = weights.read_bytes()

def copy():
    "A model folder that may be damaged."
    target = Path(tempfile.mkdtemp(dir=folder.parent))
    shutil.copytree(folder, target, dirs_exist_ok=True)
    return target, target / "model.safetensors"

def refusal(call):
    try:
        call()
    except CheckpointError as error:
        return error.message.split("model.safetensors: ")[-1]

def bus_error():
    "Read beyond the end of a mapped file that is no model."
    with tempfile.TemporaryFile() as file:
        file.truncate(3 * mmap.PAGESIZE)
        view = mmap.mmap(file.fileno(), 0)
        file.truncate(0)
        view[mmap.PAGESIZE]
"""


def check_run(code: str, folder: Path, returncode: int = 0) -> tuple[list[str], str]:
    """Return what `code` printed, on its lines, and its stderr; it must end with `returncode`."""
    command = [sys.executable, "-c", PRELUDE + code, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == returncode, (done.returncode, done.stdout, done.stderr)
    return done.stdout.splitlines(), done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model of several pages whose prompts take a while."""
    path = tmp_path_factory.mktemp("truncation") / "model"
    write_random(path, replace(SMALL, vocab_size=999, max_position_embeddings=4096))
    return path


def test_a_file_truncated_between_calls(folder):
    code = """
model = load(folder, threads=1)
expected = model.logits([1, 2, 3])
for length in (0, 1, 1000, mmap.PAGESIZE, len(intact) // 2, len(intact) - 1):
    target, file = copy()
    damaged = load(target, threads=2)
    session, other = damaged.session(), damaged.session()
    before = session.append([1, 2])
    os.truncate(file, length)
    calls = (lambda: session.append([3]), lambda: session.append_all([3]), session.routing,
             lambda: session.rewind(0), lambda: other.append([1]), lambda: damaged.logits([1]))
    assert {refusal(call) for call in calls} == {"was truncated while in use"}
    assert session.position == 2 and other.position == 0
    file.write_bytes(intact)  # too late: what was mapped may be gone
    assert refusal(lambda: session.append([3])).endswith("while in use")
    assert np.array_equal(load(target, threads=1).logits([1, 2]), model.logits([1, 2]))
assert np.array_equal(model.logits([1, 2, 3]), expected)
"""
    check_run(code, folder)


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("call", ["prefill", "decode"])
def test_a_file_truncated_by_another_thread_in_the_middle(folder, threads, call):
    """The file shrinks at a random moment of a prompt, or of many single tokens."""
    code = f"""
model = load(folder, threads=1)
ids = np.ones(3000, np.int32)
calls = {{"prefill": lambda session: session.append(ids),
          "decode": lambda session: [session.append([1]) for _ in range(3000)]}}
started = time.perf_counter()
calls[{call!r}](model.session())
longest = time.perf_counter() - started
rng = random.Random({threads})
in_the_middle = 0
for trial in range(8):
    target, file = copy()
    session = load(target, threads={threads}).session()
    first = session.append([1, 2])
    length = rng.choice([0, 100, rng.randrange(len(intact)), len(intact) - 1])
    thread = threading.Timer(rng.random() * min(longest, 0.06), os.truncate, (file, length))
    thread.start()
    message = refusal(lambda: calls[{call!r}](session))
    in_the_middle += message is not None
    thread.join()
    assert message in (None, "was truncated while in use"), message
    if {call!r} == "prefill" and message:
        assert session.position == 2, session.position
    assert refusal(lambda: session.append([1])) == "was truncated while in use"
    shutil.rmtree(target)
print(in_the_middle)
"""
    (in_the_middle,), _ = check_run(code, folder)
    assert int(in_the_middle) > 0


def test_a_file_truncated_while_it_is_opened(folder):
    """Whatever the moment: a model, or a refusal."""
    code = """
target, file = copy()
stop = False

def shrink_and_restore():
    rng = random.Random(0)
    while not stop:
        os.truncate(file, rng.randrange(len(intact)))
        time.sleep(rng.random() / 1000)
        file.write_bytes(intact)
        time.sleep(rng.random() / 1000)

thread = threading.Thread(target=shrink_and_restore)
thread.start()
messages = {str(refusal(lambda: load(target, threads=1).logits([1]))) for _ in range(400)}
stop = True
thread.join()
print(*messages, sep="\\n")
"""
    lines, _ = check_run(code, folder)
    known = ("None", "while in use", "is empty", "header length", "tensors cover", "too short")
    assert all(any(word in line for word in known) for line in lines), lines


def test_bytes_written_in_place_are_noticed(folder):
    code = """
target, file = copy()
session = load(target, threads=1).session()
with file.open("r+b") as handle:
    handle.seek(-1, os.SEEK_END)
    handle.write(b"x")
print(refusal(lambda: session.append([1])))
"""
    assert check_run(code, folder)[0] == ["was changed while in use"]


def test_a_file_replaced_by_renaming_or_deleted_goes_on_working(folder):
    code = """
target, file = copy()
model, session = load(target, threads=2), load(target, threads=2).session()
expected = model.logits([1, 2, 3])
session.append([1, 2])
os.replace(copy()[1], file)
assert np.array_equal(session.append([3]), expected[-1])
shutil.rmtree(target)
assert np.array_equal(model.logits([1, 2, 3]), expected)
"""
    check_run(code, folder)


DAMAGE = """
target, file = copy()
session = load(target, threads=2).session()
session.append([1])
threading.Timer(0.02, os.truncate, (file, 0)).start()
while not (message := refusal(lambda: (session.rewind(1), session.append([1] * 40)))):
    pass
assert message == "was truncated while in use", message
"""


def test_another_bus_error_ends_the_process_as_ever(folder):
    check_run("bus_error()", folder, -signal.SIGBUS)
    check_run(DAMAGE + "bus_error()", folder, -signal.SIGBUS)
    check_run(
        DAMAGE + "os.kill(os.getpid(), signal.SIGBUS); time.sleep(60)", folder, -signal.SIGBUS
    )


@pytest.mark.parametrize("when", ["before", "after", "twice"])
def test_faulthandler_still_reports_another_bus_error(folder, when):
    enable = "faulthandler.enable()\n"
    first, later = (enable if when != "after" else ""), (enable if when != "before" else "")
    _, errors = check_run(first + DAMAGE + later + DAMAGE + "bus_error()", folder, -signal.SIGBUS)
    assert errors.count("Fatal Python error: Bus error") == 1
    assert "in bus_error" in errors
    assert check_run(first + DAMAGE + later + "faulthandler.disable()\n" + DAMAGE, folder)[1] == ""


def test_a_handler_of_the_program_still_gets_sent_signals(folder):
    code = """
got = []
signal.signal(signal.SIGBUS, lambda *_: got.append("before"))
DAMAGE
os.kill(os.getpid(), signal.SIGBUS)
signal.signal(signal.SIGBUS, lambda *_: got.append("after"))
DAMAGE
os.kill(os.getpid(), signal.SIGBUS)
signal.signal(signal.SIGBUS, signal.SIG_IGN)
DAMAGE
os.kill(os.getpid(), signal.SIGBUS)
print(got)
""".replace("DAMAGE", DAMAGE)
    assert check_run(code, folder)[0] == ["['before', 'after']"]


MANY = """
from dataclasses import asdict
from mobilemoe.checkpoint import open_checkpoint
from mobilemoe.engine import _native

config = asdict(open_checkpoint(folder).config)
for _ in range(4200):
    _native.Model([str(weights)], config, 1, "auto", "int4")
"""


def test_models_come_and_go_without_end(folder):
    """The table of guarded ranges has 4096 places; each is free again with its model."""
    check_run(MANY + DAMAGE, folder)
