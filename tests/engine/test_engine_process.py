"""What surrounds the engine in its process: forks, limits of the system, odd files and paths."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from engine_support import INT4_FOLDERS, SMALL, write_random

from mobilemoe.engine import load
from mobilemoe.errors import CheckpointError

FOLDER = INT4_FOLDERS[0]
linux = pytest.mark.skipif(sys.platform != "linux", reason="limits and names as Linux has them")

PRELUDE = """
import os, resource, signal, sys
from pathlib import Path
import numpy as np
from mobilemoe.engine import load
from mobilemoe.errors import MobileMoEError

def limit_memory(more):
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + more, used + more))
"""


def run(code: str, *arguments: object) -> list[str]:
    """Run `code` in an interpreter of its own, which must not hang, and return its lines."""
    command = [sys.executable, "-c", PRELUDE + code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


FORK = """
model = load(sys.argv[1], threads=int(sys.argv[2]), context=8)
session, probe = model.session(), model.probe(1)
session.append([1, 2])
x = np.ones((1, 128), np.float32)
calls = (lambda: session.append([3]), lambda: session.rewind(1), session.routing,
         lambda: probe.head(x), lambda: probe.attention(0, x), lambda: probe.feed_forward(0, x))
child = os.fork()
if child == 0:
    for call in calls:
        try:
            print(type(call()).__name__, flush=True)
        except MobileMoEError as error:
            print(error.message, "|", error.hint, flush=True)
    del session, probe, model, calls, call
    os._exit(0)
print("child", os.waitpid(child, 0)[1], "parent", session.append([3]).shape)
"""


@pytest.mark.parametrize("threads", [2, 4])
def test_a_forked_process_is_told_to_load_again(threads):
    *refusals, last = run(FORK, FOLDER, threads)
    assert len(refusals) == 6
    for line in refusals:
        assert f"threads is {threads}; allowed after a fork: 1 | load the model in the" in line
    assert last == "child 0 parent (512,)"


def test_a_forked_process_can_go_on_with_one_thread():
    *answers, last = run(FORK, FOLDER, 1)
    expected = ["ndarray", "NoneType", "ndarray", "ndarray", "ndarray", "FeedForwardOutput"]
    assert answers == expected
    assert last == "child 0 parent (512,)"


# A signal five milliseconds into an append that takes many more: it is seen at the next pause.
ALARM = """
model = load(sys.argv[1], threads=2)
session, other = model.session(), model.session()
session.append([1, 2, 3])
ids = np.ones(3000, np.int32)

def during_append(handle):
    signal.signal(signal.SIGALRM, lambda _, frame: handle())
    signal.setitimer(signal.ITIMER_REAL, 0.005)
    try:
        session.append(ids)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
"""


@pytest.fixture(scope="module")
def long_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("long") / "model"
    write_random(folder, replace(SMALL, max_position_embeddings=4096))
    return folder


def test_an_interrupted_append_leaves_the_session_as_it_was(long_model):
    code = """
class Interrupt(Exception): ...

def handle():
    raise Interrupt

try:
    during_append(handle)
except Interrupt:
    print(session.ids, session.routing().shape)
    print(np.array_equal(session.append([4]), model.logits([1, 2, 3, 4])[-1]))
"""
    assert run(ALARM + code, long_model) == ["[1, 2, 3] (3, 3, 3)", "True"]


def test_a_signal_handler_that_calls_the_model_gets_an_error_and_no_deadlock(long_model):
    code = """
messages = []
probe, x = model.probe(1), np.ones((1, 96), np.float32)

def probe_head():
    return probe.head(x)

def handle():
    signal.setitimer(signal.ITIMER_REAL, 0)
    for call in (lambda: other.append([1]), lambda: other.rewind(0), other.routing, probe_head,
                 lambda: session.append([9])):
        try:
            call()
        except MobileMoEError as error:
            messages.append(error.message)

while not messages:  # on a busy machine the signal may come too early
    session.rewind(3)
    during_append(handle)
print(len(messages), *set(messages), session.position, sep="\\n")
print(session.ids == [1, 2, 3] + [1] * 3000)
"""
    refused, message, position, same_ids = run(ALARM + code, long_model)
    assert refused == "5" and position == "3003" and same_ids == "True"
    assert message.startswith("the model is called while it computes in the same thread")


@linux
def test_threads_that_the_system_refuses_are_an_error_with_a_hint():
    code = """
load(sys.argv[1], threads=1)
limit_memory(1 << 29)
try:
    load(sys.argv[1], threads=1024)
except MobileMoEError as error:
    print(error)
"""
    message, hint = run(code, FOLDER)
    assert message.startswith("threads is 1024; this system starts no more of them: ")
    assert hint == "hint: choose fewer threads"


@linux
def test_too_many_ids_are_refused_before_memory_is_taken_for_their_logits(tmp_path):
    config = replace(SMALL, vocab_size=4096, num_hidden_layers=1, max_position_embeddings=65_536)
    write_random(tmp_path / "model", config)
    code = """
session = load(sys.argv[1], threads=1, context=65_536).session()
session.append([1])
limit_memory(1 << 28)  # the logits would be 1 GiB
try:
    session.append_all([1] * 65_536)
except MobileMoEError as error:
    print(error.message)
"""
    (message,) = run(code, tmp_path / "model")
    assert message.startswith("ids has 65536 tokens; allowed: at most 65535")


def test_a_folder_or_a_pipe_in_place_of_the_file_is_refused(tmp_path):
    shutil.copy(FOLDER / "config.json", tmp_path)
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(CheckpointError, match=r"model\.safetensors: is not a regular file"):
        load(tmp_path, threads=1)
    (tmp_path / "model.safetensors").rmdir()
    os.mkfifo(tmp_path / "model.safetensors")
    code = """
try:
    load(sys.argv[1], threads=1)
except MobileMoEError as error:
    print(error.message)
"""
    assert run(code, tmp_path) == [f"{tmp_path / 'model.safetensors'}: is not a regular file"]


@linux
def test_a_path_outside_utf8_is_refused(tmp_path):
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    shutil.copytree(FOLDER, folder)
    with pytest.raises(CheckpointError, match="the path is not UTF-8"):
        load(folder, threads=1)


@linux
@pytest.mark.parametrize("weight_format", ["int4", "bf16"])
def test_weights_stay_in_their_file(tmp_path, weight_format):
    config = replace(SMALL, vocab_size=131_072, num_hidden_layers=1)  # 24 MiB in BF16
    write_random(tmp_path / "model", config, weight_format)
    code = """
def own_memory():
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) * 1024

load(sys.argv[1], threads=1)
before = own_memory()
logits_V = load(sys.argv[2], threads=1).session().append([1, 2])
print(own_memory() - before)
"""
    (grown,) = run(code, FOLDER, tmp_path / "model")
    assert int(grown) < 4 * 2**20, f"{int(grown) / 2**20:.1f} MiB"
