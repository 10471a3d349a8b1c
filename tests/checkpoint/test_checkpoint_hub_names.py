"""What is a name on the hub, what a path; where a token comes from; what a blob's name says."""

from __future__ import annotations

import string
from pathlib import Path

import pytest
from huggingface_hub import constants, get_token
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from hypothesis import given
from hypothesis import strategies as st

from mobilemoe.checkpoint.hub import (
    TokenStatus,
    cached_sha256,
    check_token,
    is_hub_id,
    split_revision,
)
from mobilemoe.checkpoint.hub import token_status as status_of_token
from mobilemoe.errors import CheckpointError

SHA = "0123456789abcdef" * 4
OTHER = "fedcba9876543210" * 4


@pytest.mark.parametrize(
    "text",
    [
        "facebook/MobileMoE-S-QAT",
        "facebook/MobileMoE-S-QAT@main",
        "facebook/MobileMoE-S-QAT@refs/pr/1",
        "facebook/MobileMoE-S-QAT@8a2b0c",
        "a/b",
        "0/9",
        "_a/b_",
        "a.b/c.d",
        "a-b/c-d",
        f"{'a' * 96}/{'b' * 96}",
    ],
)
def test_names_on_the_hub(text):
    assert is_hub_id(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "/",
        "/x",
        "x/",
        "./x",
        "../x",
        "a/..",
        "a/.",
        "a/b/c",
        "/a/b",
        "a//b",
        "~/x",
        "a\\b",
        "C:/x",
        "C:\\x\\y",
        "a b/c",
        " a/b",
        "a/b ",
        "a/b\n",
        "a/b\0",
        "ä/b",
        "a/\uff42",
        "a--b/c",
        "a/b..c",
        "-a/b",
        "a/b-",
        ".a/b",
        "a/b.",
        "a/b.git",
        "a/b.git@main",
        "@main",
        "x@main",
        "https://huggingface.co/a/b",
        "hf://a/b",
        f"{'a' * 97}/b",
        f"a/{'b' * 97}",
    ],
    ids=ascii,
)
def test_what_is_no_name_on_the_hub(text):
    assert not is_hub_id(text)


def test_what_exists_as_a_path_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_hub_id("runs/demo")
    Path("runs").mkdir()
    Path("runs/demo").mkdir()
    Path("runs/demo@v1").mkdir()
    Path("runs/file").touch()
    Path("runs/broken").symlink_to("nowhere")
    for text in ("runs/demo", "runs/demo@v1", "runs/file", "runs/broken"):
        assert not is_hub_id(text), text
    assert is_hub_id("runs/demo@v2")


def test_a_name_in_a_folder_that_is_here_is_a_path_unless_a_revision_is_given(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("owner").touch()
    assert is_hub_id("owner/name")
    Path("runs").mkdir()
    assert not is_hub_id("runs/none")
    assert is_hub_id("runs/none@main")
    assert is_hub_id("runs/none", "main")
    Path("runs/none").mkdir()
    assert not is_hub_id("runs/none", "main")


NAME = st.text(string.ascii_letters + string.digits + "_-./~ \n@é", max_size=12)


@given(st.tuples(NAME, NAME).map("/".join) | NAME)
def test_names_are_those_that_the_library_takes(text):
    """The library also takes names without an owner; we read those as paths."""
    repo_id, revision = split_revision(text)
    try:
        validate_repo_id(repo_id)
        valid = "/" in repo_id and repo_id.isascii()  # older versions take all letters
    except HFValidationError:
        valid = False
    assert is_hub_id(text) == valid
    assert text == repo_id + ("" if revision is None else f"@{revision}")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a/b", ("a/b", None)),
        ("a/b@main", ("a/b", "main")),
        ("a/b@refs/pr/1", ("a/b", "refs/pr/1")),
        ("a/b@", ("a/b", "")),
        ("a/b@x@y", ("a/b", "x@y")),
        ("", ("", None)),
    ],
)
def test_the_revision_follows_the_first_at(text, parts):
    assert split_revision(text) == parts


# --- token ---------------------------------------------------------------------------------


@pytest.fixture
def token_file(tmp_path, monkeypatch) -> Path:
    """The path of the token file, with no token anywhere yet."""
    path = tmp_path / "hf" / "token"
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(path))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", False)
    return path


def save_token(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)


def test_no_token(token_file):
    assert status_of_token() == TokenStatus("none", "", sent=False)
    save_token(token_file, b" \n")
    assert status_of_token() == TokenStatus("none", "", sent=False)


def test_a_token_comes_from_the_environment_before_the_file(token_file, monkeypatch):
    save_token(token_file, b"hf_file\n")
    assert status_of_token() == TokenStatus("file", str(token_file), sent=True)
    monkeypatch.setenv("HF_TOKEN", "")
    assert status_of_token().source == "file"
    monkeypatch.setenv("HUGGING_FACE_HUB_TOKEN", "hf_old")
    assert status_of_token() == TokenStatus("environment", "HUGGING_FACE_HUB_TOKEN", sent=True)
    monkeypatch.setenv("HF_TOKEN", "hf_new")
    assert status_of_token() == TokenStatus("environment", "HF_TOKEN", sent=True)
    monkeypatch.setenv("HF_TOKEN", " \n")
    assert status_of_token().source == "file", "as the library does"


@pytest.mark.parametrize("environment", ["", " ", "hf_new\n"])
@pytest.mark.parametrize("file", [b"", b"\n", b"hf_file\r\n"])
def test_a_token_is_found_where_the_library_finds_one(token_file, monkeypatch, environment, file):
    save_token(token_file, file)
    monkeypatch.setenv("HF_TOKEN", environment)
    expected = get_token()
    assert status_of_token().sent == (expected is not None)
    places = {None: "none", "hf_new": "environment", "hf_file": "file"}
    assert status_of_token().source == places[expected]


def test_a_token_that_is_not_to_be_sent(token_file, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_new")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    assert status_of_token() == TokenStatus("environment", "HF_TOKEN", sent=False)


@pytest.mark.parametrize("token", ["hf_a b", "hf_\x7f", "hf_\u00e9", "hf_\t1"])
def test_a_malformed_token_is_known_by_the_rule_that_refuses_it(token_file, monkeypatch, token):
    monkeypatch.setenv("HF_TOKEN", token)
    assert status_of_token() == TokenStatus("environment", "HF_TOKEN", True, malformed=True)
    with pytest.raises(CheckpointError, match="token from HF_TOKEN"):
        check_token()


def test_a_token_file_that_is_none(token_file):
    save_token(token_file, b"\xff\xfe")
    assert status_of_token() == TokenStatus("unreadable file", str(token_file), sent=False)
    token_file.unlink()
    token_file.mkdir()
    assert status_of_token().source == "unreadable file"


def test_the_value_of_a_token_is_never_part_of_its_status(token_file, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert "hf_secret" not in repr(status_of_token())


# --- blobs ---------------------------------------------------------------------------------


def cached(root: Path, blob: str) -> Path:
    """Return the path of a snapshot's file whose content is in `blob`."""
    repo = root / "models--a--b"
    (repo / "blobs").mkdir(parents=True)
    (repo / "snapshots" / "commit").mkdir(parents=True)
    path = repo / "snapshots" / "commit" / "model.safetensors"
    path.symlink_to(f"../../blobs/{blob}")
    return path


def test_the_name_of_a_large_blob_is_its_sha256(tmp_path, monkeypatch):
    path = cached(tmp_path, SHA)
    assert cached_sha256(path) == SHA, "known before the content is there"
    path.resolve().write_bytes(b"x")
    assert cached_sha256(path) == SHA
    assert cached_sha256(path.resolve()) == SHA
    (tmp_path / "link").symlink_to(path.parent)
    assert cached_sha256(tmp_path / "link" / path.name) == SHA
    (tmp_path / "file").symlink_to(path)
    assert cached_sha256(tmp_path / "file") == SHA
    monkeypatch.chdir(path.parent)
    assert cached_sha256(Path(path.name)) == SHA


def test_the_shared_store_behind_a_blob_is_named_by_another_hash(tmp_path):
    """huggingface_hub 2 links blobs/<SHA-256> on to ../blobs/xx/<hash of its own kind>."""
    path = cached(tmp_path, SHA)
    store = tmp_path / "blobs" / OTHER[:2]
    store.mkdir(parents=True)
    (store / OTHER).write_bytes(b"x")
    (tmp_path / "models--a--b" / "blobs" / SHA).symlink_to(f"../../blobs/{OTHER[:2]}/{OTHER}")
    assert path.resolve().name == OTHER
    assert cached_sha256(path) == SHA
    assert cached_sha256(store / OTHER) is None


@pytest.mark.parametrize("name", [SHA[:40], SHA[:-1], f"{SHA}0", SHA.upper(), "x" * 64])
def test_other_blob_names_say_nothing(tmp_path, name):
    assert cached_sha256(cached(tmp_path, name)) is None


def test_files_outside_a_cache_say_nothing(tmp_path):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / SHA).write_bytes(b"x")
    (tmp_path / SHA).write_bytes(b"x")
    (tmp_path / "loop").symlink_to("loop")
    for path in (tmp_path / "blobs" / SHA, tmp_path / SHA, tmp_path / "loop", tmp_path / "no"):
        assert cached_sha256(path) is None
