"""Models of the hub, fetched by the real library from a stand-in server: what works."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import termios
import threading
from pathlib import Path

import pytest
from hub_support import (
    OTHERS,
    OWNED,
    SMALL,
    WEIGHTS,
    call,
    sharded,
    single,
)

from hub_server import Fault, Repo
from mobilemoe.checkpoint import open_checkpoint
from mobilemoe.checkpoint.hub_cache import cached_sha256

SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
OFFLINE = {"HF_HUB_OFFLINE": "1"}


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def without(files: dict[str, bytes], *groups: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if not any(name in g for g in groups)}


def test_brings_the_files_of_a_checkpoint_and_no_others(server, machine):
    server.repos[OWNED] = Repo.of(single())
    folder = machine.folder_of(OWNED)
    assert content(folder) == without(single(), OTHERS)
    assert folder.is_relative_to(machine.cache)
    open_checkpoint(folder).tensors()
    assert not any(seen.path.endswith(f"/{name}") for seen in server.seen for name in OTHERS)
    assert next(n for n in server.fetched() if n in without(single(), OTHERS)) == "config.json"
    assert server.fetched("store") == [hashlib.sha256(WEIGHTS).hexdigest()]


def test_a_copy_in_the_cache_costs_one_request_and_is_not_fetched_again(server, machine):
    server.repos[OWNED] = Repo.of(single())
    folder = machine.folder_of(OWNED)
    server.seen.clear()
    assert machine.folder_of(OWNED) == folder
    asked = [seen.path for seen in server.seen if "harness" not in seen.path]
    assert asked == [f"/api/models/{OWNED}/revision/main"]


def test_a_cache_behind_a_link_is_one_and_the_same(server, machine):
    server.repos[OWNED] = Repo.of(single())
    (machine.folder / "hf").mkdir()
    (machine.folder / "link").symlink_to("hf")
    behind = {"HF_HOME": str(machine.folder / "link")}
    folder = machine.folder_of(OWNED, **behind)
    server.seen.clear()
    assert machine.folder_of(OWNED, **behind) == folder
    assert server.fetched(method="HEAD") == []
    assert machine.folder_of(OWNED, HF_HUB_OFFLINE="1", **behind) == folder
    assert machine.folder_of(OWNED) == folder


def test_brings_every_shard_of_an_index(server, machine):
    server.repos[OWNED] = Repo.of(sharded())
    folder = machine.folder_of(OWNED)
    assert content(folder) == without(sharded(), OTHERS)
    whole = open_checkpoint(Path(__file__).parents[1] / "data" / "tiny-int4").tensors()
    files = open_checkpoint(folder).tensors().files
    names = [name for file in files for name in file.entries]
    assert sorted(names) == sorted(whole.entries)


@pytest.mark.parametrize("switch", ["0", "1"])
def test_progress_is_shown_on_the_terminal_behind_stderr(server, machine, switch):
    server.repos[OWNED] = Repo.of(single())
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    streams = {"stderr": theirs, "stdout": subprocess.PIPE}
    running = machine.start(call(OWNED), streams=streams, HF_HUB_DISABLE_PROGRESS_BARS=switch)
    assert running.communicate(timeout=60) == ("", None)
    os.write(theirs, b"the end")
    shown = os.read(ours, 1_000_000).decode()
    os.close(ours)
    os.close(theirs)
    assert ("100%" in shown) == (switch == "0"), shown


def test_a_mirror_may_state_no_sizes(server, machine):
    server.repos[OWNED] = Repo.of(single(), states_sizes=False)
    assert content(machine.folder_of(OWNED)) == without(single(), OTHERS)


def test_one_weights_file_is_preferred_to_an_index_beside_it(server, machine):
    server.repos[OWNED] = Repo.of({**sharded(), **single()})
    assert content(machine.folder_of(OWNED)) == without(single(), OTHERS)


def test_without_weights_brings_the_small_files_and_later_only_the_weights(server, machine):
    server.repos[OWNED] = Repo.of(sharded())
    light = machine.folder_of(OWNED, weights=False)
    assert set(content(light)) == {"config.json", *SMALL}
    server.seen.clear()
    assert machine.folder_of(OWNED) == light
    assert content(light) == without(sharded(), OTHERS)
    assert not set(server.fetched()) & {"config.json", *SMALL}


def test_a_revision_is_a_tag_a_commit_or_part_of_the_name(server, machine):
    repo = server.repos[OWNED] = Repo.of({**single(), "tokenizer.json": b"old"})
    old = repo.refs["v1"] = repo.refs["main"]
    new = repo.commit({**single(), "tokenizer.json": b"new"})
    repo.refs["refs/pr/7"] = old
    wanted = [(OWNED, "v1"), (OWNED, old), (f"{OWNED}@v1",), (f"{OWNED}@refs/pr/7", "refs/pr/7")]
    results = machine.run(*(call(*args) for args in wanted), call(OWNED), call(OWNED, new))
    folders = [Path(result["value"]) for result in results]
    assert [(f / "tokenizer.json").read_bytes() for f in folders] == [b"old"] * 4 + [b"new"] * 2
    assert [f.name for f in folders] == [old] * 4 + [new] * 2
    assert len(server.fetched("store")) == 1, "the same weights are fetched once"


def test_a_full_commit_in_the_cache_needs_no_request(server, machine):
    repo = server.repos[OWNED] = Repo.of(single())
    commit = repo.refs["main"]
    folder = machine.folder_of(OWNED, commit)
    server.seen.clear()
    assert machine.folder_of(OWNED, commit) == folder
    assert server.seen == []


@pytest.mark.parametrize("files", [single, sharded])
def test_a_complete_copy_opens_without_a_hub(server, machine, files):
    server.repos[OWNED] = Repo.of(files())
    folder = machine.folder_of(OWNED)
    server.seen.clear()
    assert machine.folder_of(OWNED, **OFFLINE) == folder
    assert server.seen == []
    gone = machine.at("http://127.0.0.1:9")  # nobody listens there
    assert gone.folder_of(OWNED) == folder
    server.faults.append(Fault("main", status=503))
    assert machine.folder_of(OWNED) == folder
    assert len(server.fetched()) == 1, "a complete copy does not wait for retries"


def test_a_connection_that_breaks_goes_on_where_it_was(server, machine):
    server.repos[OWNED] = Repo.of(single())
    server.faults.append(Fault(hashlib.sha256(WEIGHTS).hexdigest(), cut_after=300_000, times=2))
    *_, last = machine.run(*[call(OWNED)] * 3)  # older versions go on with the next call only
    assert (Path(last["value"]) / "model.safetensors").read_bytes() == WEIGHTS
    ranges = [seen.range for seen in server.seen if seen.place == "store"]
    assert ranges == [None, "bytes=300000-", "bytes=600000-"]


def test_a_killed_download_is_incomplete_offline_and_goes_on_with_the_next_file(server, machine):
    files = sharded()
    server.repos[OWNED] = Repo.of(files)
    second = hashlib.sha256(files[SHARDS[1]]).hexdigest()
    stalled = threading.Event()
    server.faults.append(Fault(second, cut_after=1000, stalls=stalled, times=1))
    running = machine.start(call(OWNED))
    try:
        assert stalled.wait(60)
    finally:
        running.kill()
        running.wait()
    error = machine.expect_error(OWNED, **OFFLINE)
    assert "offline mode is on" in error["message"]
    assert f"is incomplete: no {SHARDS[1]}" in error["message"]
    assert SHARDS[0] not in error["message"], "this one is there"
    server.seen.clear()
    assert content(machine.folder_of(OWNED)) == without(files, OTHERS)
    assert server.fetched("store") == [second], "only the file that was missing"


def test_a_branch_moves_in_the_cache_when_the_new_commit_is_complete(server, machine):
    repo = server.repos[OWNED] = Repo.of(sharded())
    old = machine.folder_of(OWNED)
    changed = {**sharded(), SHARDS[1]: sharded()[SHARDS[1]] + b"\0"}
    repo.commit(changed)
    moved = hashlib.sha256(changed[SHARDS[1]]).hexdigest()
    server.faults.append(Fault(moved, status=500))
    error = machine.expect_error(OWNED)
    server.faults.clear()
    assert "HTTP status 500" in error["message"]
    assert f"older copy is in the cache: {old}" in error["message"]
    assert machine.folder_of(OWNED, **OFFLINE) == old
    server.seen.clear()
    new = machine.folder_of(OWNED)
    assert new != old
    assert server.fetched("store") == [moved], "unchanged files are not fetched again"
    assert machine.folder_of(OWNED, **OFFLINE) == new


def test_two_processes_may_fetch_at_once(server, machine):
    server.repos[OWNED] = Repo.of(sharded())
    running = [machine.start(call(OWNED)) for _ in range(2)]
    assert [process.wait(60) for process in running] == [0, 0]
    assert content(machine.folder_of(OWNED, **OFFLINE)) == without(sharded(), OTHERS)


def test_the_sha256_of_a_cached_weights_file_is_known_without_reading_it(server, machine):
    server.repos[OWNED] = Repo.of(single())
    folder = machine.folder_of(OWNED)
    assert cached_sha256(folder / "model.safetensors") == hashlib.sha256(WEIGHTS).hexdigest()
    assert cached_sha256(folder / "config.json") is None, "git's hash is another one"


@pytest.mark.parametrize("place", ["variable", "old variable", "file"])
def test_a_token_opens_a_gated_model_and_stays_with_the_hub(server, machine, place):
    server.tokens.add("hf_good")
    server.repos[OWNED] = Repo.of(single(), gated=True, private=True, members={"hf_good"})
    env = {
        "variable": {"HF_TOKEN": "hf_good"},
        "old variable": {"HUGGING_FACE_HUB_TOKEN": "hf_good"},
    }
    if place == "file":
        (machine.folder / "hf").mkdir()
        (machine.folder / "hf" / "token").write_text("hf_good\n")
    machine.folder_of(OWNED, **env.get(place, {}))
    assert {s.token for s in server.seen if OWNED in s.path} == {"hf_good"}
    assert {s.token for s in server.seen if s.place == "store"} == {None}


def test_importing_and_naming_loads_no_hub_library():
    code = (
        "import sys; from mobilemoe.checkpoint import hub; hub.is_hub_id('a/b'); "
        "sys.exit('huggingface_hub' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
