"""What can go wrong on the way to the hub: one error each, that says what to do."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from hub_support import (
    OTHERS,
    OWNED,
    SMALL,
    WEIGHTS,
    as_json,
    call,
    check_error,
    sharded,
    single,
)
from shard_name_cases import HOSTILE_NAMES

from hub_server import BAD_TOKEN, Fault, HubServer, Repo

PAGE = f"https://huggingface.co/{OWNED}"
NOBODY = "http://127.0.0.1:9"  # the port of a service that no machine runs


def large_files_asked_for(server: HubServer) -> list[str]:
    return [s.path for s in server.seen if s.place == "store" or s.path.endswith(".safetensors")]


# --- access --------------------------------------------------------------------------------


def test_a_gated_model_without_a_token(server, machine):
    server.repos[OWNED] = Repo.of(single(), gated=True)
    words = ["gated", "no token was sent", "FAIR Noncommercial", PAGE, "HF_TOKEN", "read token"]
    machine.expect_error(OWNED, words=words)


def test_a_token_that_the_library_may_not_send(server, machine):
    server.tokens.add("hf_good")
    server.repos[OWNED] = Repo.of(single(), gated=True, members={"hf_good"})
    forbidden = {"HF_TOKEN": "hf_good", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}
    machine.expect_error(OWNED, words=["no token was sent"], **forbidden)


def test_a_gated_model_and_a_token_without_access(server, machine):
    server.tokens.add("hf_other")
    server.repos[OWNED] = Repo.of(single(), gated=True)
    words = ["gated", "token from HF_TOKEN has no access", "FAIR Noncommercial", PAGE]
    error = machine.expect_error(OWNED, words=words, HF_TOKEN="hf_other")
    assert "hf_other" not in str(error)
    assert large_files_asked_for(server) == []


@pytest.mark.parametrize("files", [None, single()], ids=["absent", "public"])
def test_a_token_that_the_hub_does_not_know(server, machine, files):
    if files is not None:
        server.repos[OWNED] = Repo.of(files)
    token_file = machine.folder / "hf" / "token"
    token_file.parent.mkdir()
    token_file.write_text("hf_expired")
    words = ["does not accept the token from", str(token_file), "settings/tokens"]
    assert "hf_expired" not in str(machine.expect_error(OWNED, words=words))


def test_a_refusal_that_only_a_token_explains(server, machine):
    """Logins that we do not see, and servers that say it in their own words."""
    server.repos[OWNED] = Repo.of(single())
    server.faults.append(Fault("main", status=401, message=BAD_TOKEN, times=1))
    machine.expect_error(OWNED, words=["does not accept the token from your login"])
    server.faults.append(Fault("main", status=401, message="who are you?", times=1))
    words = ["does not accept the token from HF_TOKEN"]
    machine.expect_error(OWNED, words=words, HF_TOKEN="hf_any")


def test_a_token_for_other_things(server, machine):
    server.tokens.add("hf_fine")
    server.repos[OWNED] = Repo.of(single())
    server.faults.append(Fault("config.json", method="HEAD", status=403))
    words = ["the hub refuses", "was told to fail", "read access to gated", PAGE]
    machine.expect_error(OWNED, words=words, HF_TOKEN="hf_fine")


@pytest.mark.parametrize("token", ["hf_a b", "hf_ü", "hf_\x7f", "hf_\t1"])
def test_a_token_that_is_none_is_not_sent_and_not_shown(server, machine, token):
    server.repos[OWNED] = Repo.of(single())
    words = ["token from HF_TOKEN holds a space or a character", "settings/tokens"]
    error = machine.expect_error(OWNED, words=words, HF_TOKEN=token)
    assert token not in str(error)
    assert server.seen == []


def test_a_token_file_that_cannot_be_read(server, machine):
    (machine.folder / "hf" / "token").mkdir(parents=True)
    machine.expect_error(OWNED, words=["cannot read the token file", "permissions"])


def test_a_server_that_repeats_the_token_and_writes_to_the_terminal(server, machine):
    server.tokens.add("hf_secret")
    server.repos[OWNED] = Repo.of(single())
    message = "no \x1b[31mway\x07 for hf_secret " + "x" * 1000
    server.faults.append(Fault("main", status=403, message=message))
    error = machine.expect_error(OWNED, HF_TOKEN="hf_secret")
    assert "no [31mway for *** xxx" in error["message"]
    assert error["message"].isprintable()
    assert len(error["message"]) < 500


# --- absence -------------------------------------------------------------------------------


def test_a_repository_that_is_not_there_or_private(server, machine):
    server.tokens.add("hf_good")
    server.repos[OWNED] = Repo.of(single(), private=True, members={"hf_member"})
    words = [f"no repository {OWNED}, or it is private", f"there is no folder {OWNED} here"]
    assert "no token was sent" in machine.expect_error(OWNED, words=words)["message"]
    error = machine.expect_error(OWNED, words=words, HF_TOKEN="hf_good")
    assert "no token" not in error["message"]


def test_a_revision_that_is_not_there(server, machine):
    server.repos[OWNED] = Repo.of(single())
    machine.folder_of(OWNED)
    for args in [(OWNED, "v9"), (f"{OWNED}@v9",)]:
        machine.expect_error(*args, words=["has no revision 'v9'", f"{PAGE}/commits/main"])


def test_a_revision_that_was_taken_back_is_not_opened_from_the_cache(server, machine):
    repo = server.repos[OWNED] = Repo.of(single())
    repo.refs["v1"] = repo.refs["main"]
    machine.folder_of(OWNED, "v1")
    del repo.refs["v1"]
    machine.expect_error(OWNED, "v1", words=["has no revision 'v1'"])


def test_files_that_are_not_there(server, machine):
    shards = sharded()
    index = "model.safetensors.index.json"
    repos = {
        "a/no-config": {n: d for n, d in single().items() if n != "config.json"},
        "a/no-weights": {n: d for n, d in single().items() if ".safetensors" not in n},
        "a/no-pickle": {"config.json": single()["config.json"], "README.md": b"#"},
        "a/no-shard": {n: d for n, d in shards.items() if n != "model-00002-of-00002.safetensors"},
        "a/empty": {},
    }
    server.repos |= {name: Repo.of(files) for name, files in repos.items()}
    no_config, no_weights, no_pickle, no_shard, empty = machine.run(*map(call, repos))
    check_error(no_config, "a/no-config (revision main) has no config.json", "/tree/main")
    check_error(no_weights, f"has neither model.safetensors nor {index}", "pickle can run code")
    assert "pickle" not in check_error(no_pickle, "has neither model.safetensors")["hint"]
    check_error(no_shard, "has no model-00002-of-00002.safetensors")
    check_error(empty, "has no config.json")
    assert large_files_asked_for(server) == []


def test_a_file_that_goes_away_meanwhile(server, machine):
    server.repos[OWNED] = Repo.of(single())
    gone = Fault("tokenizer.json", method="HEAD", status=404, code="EntryNotFound")
    server.faults.append(gone)
    machine.expect_error(OWNED, words=["is gone", "run again"])


# --- foreign and hostile content -----------------------------------------------------------


def test_foreign_models_are_refused_before_their_weights(server, machine):
    foreign = {
        "a/llama": (single(model_type="llama"), ["model_type is 'llama'", "'mobilemoe'"]),
        "a/none": (single(model_type=None), ["model_type is None"]),
        "a/key": (single(sliding_window=4096), ["a/key", "unknown key 'sliding_window'"]),
        "a/value": (single(hidden_size=100), ["a/value", "hidden_size is 100"]),
        "a/list": ({**single(), "config.json": b"[1]"}, ["a/list", "not a JSON object"]),
        "a/text": ({**single(), "config.json": b"not json"}, ["a/text: cannot read"]),
        "a/bytes": ({**single(), "config.json": b"\xff\xfe"}, ["a/bytes: cannot read"]),
        "a/deep": ({**single(), "config.json": b"[" * 100_000}, ["a/deep: cannot read"]),
        "a/long": (single(model_type="x" * 10_000), ["model_type is 'xxx"]),
    }
    server.repos |= {name: Repo.of(files) for name, (files, _) in foreign.items()}
    results = machine.run(*map(call, foreign))
    for result, (_, words) in zip(results, foreign.values(), strict=True):
        assert result["kind"] == "CheckpointError"
        assert len(result["message"]) < 1000
        assert all(word in result["message"] for word in words), result
    assert large_files_asked_for(server) == []
    assert not set(server.fetched()) & set(SMALL)


def test_hostile_indexes_are_refused_before_anything_more_is_fetched(server, machine):
    shards = sharded()
    calls = []
    for number, name in enumerate(HOSTILE_NAMES[::9]):
        index = as_json({"weight_map": {"a": "model-00001-of-00002.safetensors", "b": name}})
        files = {**shards, "model.safetensors.index.json": index, str(name): b"trap"}
        server.repos[f"a/hostile{number}"] = Repo.of(files)
        calls.append(call(f"a/hostile{number}"))
    assert len(calls) > 10
    for result in machine.run(*calls):
        check_error(result, "the shard index names the file", "do not trust")
    assert large_files_asked_for(server) == []
    assert not set(server.fetched()) & set(SMALL)
    inside = [path for path in machine.folder.rglob("*") if path.is_file()]
    assert not any(path.read_bytes() == b"trap" for path in inside)


def test_files_of_absurd_size_are_not_fetched(server, machine):
    server.repos[OWNED] = Repo.of(single(), claims={"tokenizer.json": 10**12})
    machine.expect_error(OWNED, words=["tokenizer.json has 1000000000000 bytes", "do not trust"])
    assert "tokenizer.json" not in server.fetched()


@pytest.mark.parametrize("body", [b"<html>log in here</html>", b"{}", b"[]", b'{"id": "a/b"}'])
def test_an_address_that_is_no_hub(server, machine, body):
    server.faults.append(Fault("main", body=body))
    machine.expect_error(OWNED, words=["HF_ENDPOINT"])


def test_a_hub_that_states_no_commit(server, machine):
    body = as_json({"id": OWNED, "sha": "../../x", "siblings": [{"rfilename": "config.json"}]})
    server.faults.append(Fault("main", body=body))
    machine.expect_error(OWNED, words=["commit '../../x'", "HF_ENDPOINT"])


# --- no way to the hub ---------------------------------------------------------------------


def test_no_network_or_offline_and_nothing_in_the_cache(machine):
    machine = machine.at(NOBODY)
    empty = f"{OWNED} (revision main) is not in the cache {machine.cache}"
    machine.expect_error(OWNED, words=["cannot reach the hub at", NOBODY, empty, "proxy", "folder"])
    machine.expect_error(OWNED, words=["offline mode is on", empty, "unset"], HF_HUB_OFFLINE="1")
    machine.expect_error(OWNED, words=["cannot reach", "127.0.0.1"], HF_ENDPOINT="ftp://127.0.0.1")


def test_until_the_hub_answers_every_error_says_that_there_is_no_folder(server, machine):
    words = [f"; and there is no folder {OWNED} here"]
    machine.expect_error(OWNED, words=words)
    machine.expect_error(OWNED, words=words, HF_HUB_OFFLINE="1")
    machine.expect_error(OWNED, words=words, HF_TOKEN="hf_a b")
    machine.at(NOBODY).expect_error(OWNED, words=words)
    machine.expect_error(f"{OWNED}@v1", words=[f"no folder {OWNED}@v1 here"], HF_HUB_OFFLINE="1")
    server.repos[OWNED] = Repo.of(single(), gated=True)
    error = machine.expect_error(OWNED, words=["is gated"])
    assert "no folder" not in error["message"], "the name is that of a repository"


def test_no_network_or_offline_and_an_incomplete_copy(server, machine):
    server.repos[OWNED] = Repo.of(single())
    light = machine.folder_of(OWNED, weights=False)
    incomplete = f"the copy in the cache, {light}, is incomplete: no model.safetensors"
    gone = machine.at(NOBODY)
    gone.expect_error(OWNED, words=["cannot reach the hub", incomplete, "run again"])
    gone.expect_error(OWNED, words=["offline mode is on", incomplete, "unset"], HF_HUB_OFFLINE="1")
    assert gone.folder_of(OWNED, weights=False, HF_HUB_OFFLINE="1") == light


def test_every_missing_file_of_a_large_index_is_counted(server, machine):
    names = [f"model-{n:05}-of-00008.safetensors" for n in range(1, 9)]
    files = sharded()
    index = as_json({"weight_map": {name: name for name in names}})
    files |= {"model.safetensors.index.json": index, **dict.fromkeys(names, b"x" * 100)}
    server.repos[OWNED] = Repo.of(files)
    server.faults.append(Fault(hashlib.sha256(b"x" * 100).hexdigest(), status=500))
    machine.expect_error(OWNED, words=["HTTP status 500", f"no {', '.join(names[:3])} and 5 more"])


@pytest.mark.parametrize("status", [429, 503])
def test_a_hub_that_is_down_is_asked_again(server, machine, status):
    server.repos[OWNED] = Repo.of(single())
    server.faults.append(Fault("main", status=status, times=2))
    machine.folder_of(OWNED)
    assert server.fetched()[:3] == ["main"] * 3
    server.faults.append(Fault("config.json", method="HEAD", status=status))
    server.repos["a/b"] = Repo.of(single())
    words = [f"HTTP status {status}", "wait a few minutes"]
    machine.expect_error("a/b", words=words)
    server.faults.append(Fault("main", status=status))
    machine.expect_error("c/d", words=[*words, "c/d (revision main) is not in the cache"])


def test_a_download_that_never_gets_further(server, machine):
    server.repos[OWNED] = Repo.of(single())
    server.faults.append(Fault(hashlib.sha256(WEIGHTS).hexdigest(), cut_after=0))
    words = ["cannot reach the hub", "incomplete: no model.safetensors", "finished files are kept"]
    machine.expect_error(OWNED, words=words)
    server.faults.clear()
    assert (machine.folder_of(OWNED) / "model.safetensors").read_bytes() == WEIGHTS


# --- damage --------------------------------------------------------------------------------


def test_a_download_of_the_wrong_size(server, machine):
    server.repos[OWNED] = Repo.of(single())
    server.faults.append(Fault(hashlib.sha256(WEIGHTS).hexdigest(), short_by=1, times=1))
    words = ["damaged download", f"size {len(WEIGHTS)} but has size {len(WEIGHTS) - 1}"]
    machine.expect_error(OWNED, words=[*words, "run again"])
    assert (machine.folder_of(OWNED) / "model.safetensors").read_bytes() == WEIGHTS


def test_a_cached_file_that_was_cut_later(server, machine):
    server.repos[OWNED] = Repo.of(single())
    blob = (machine.folder_of(OWNED) / "model.safetensors").resolve()
    os.truncate(blob, 1000)
    words = ["damaged file", f"has 1000 bytes, the hub states {len(WEIGHTS)}", f"delete {blob}"]
    machine.expect_error(OWNED, words=words)
    blob.unlink()
    assert (machine.folder_of(OWNED) / "model.safetensors").read_bytes() == WEIGHTS


def test_a_cached_index_that_is_damaged(server, machine):
    server.repos[OWNED] = Repo.of(sharded())
    index = (machine.folder_of(OWNED) / "model.safetensors.index.json").resolve()
    index.write_bytes(b"{}")
    machine.expect_error(OWNED, words=["weight_map is missing", "index.json"], HF_HUB_OFFLINE="1")
    machine.expect_error(OWNED, words=["damaged file", f"delete {index}"])


# --- what is asked for ---------------------------------------------------------------------


def test_what_is_no_repository_or_no_revision_is_not_asked_for(server, machine):
    names = ["x", "a/b/c", "/a/b", "./a", "a/b.git", "a--b/c", "a/..", "", "a/b c", "ä/b", "a/b\0"]
    revisions = ["", "..", "../../x", "a..b", "/x", "-x", "a b", "a\nb", "x" * 300, "\0"]
    calls = [*map(call, names), *(call(OWNED, r) for r in revisions), call(f"{OWNED}@")]
    results = machine.run(*calls, call(f"{OWNED}@v1", "v2"))
    for result in results[: len(names)]:
        check_error(result, "is no repository of the hub; allowed: owner/name")
    for result in results[len(names) : -1]:
        check_error(result, "revision is ", "allowed: a branch, a tag or a commit")
    check_error(results[-1], "two revisions are given: 'v1'", "'v2'")
    assert server.seen == []


def test_no_trap_was_set_for_nothing():
    """The served repositories do hold code, pickles and folders."""
    assert {Path(name).suffix for name in OTHERS} >= {".py", ".bin", ".md", ".safetensors"}
