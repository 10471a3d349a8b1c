"""Files and folders that appear whole or not at all, with real and with injected failures."""

from __future__ import annotations

import errno
import os
import resource
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mobilemoe import atomic
from mobilemoe.atomic import atomic_file, atomic_folder, atomic_write
from mobilemoe.errors import MobileMoEError


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let the system refuse to write any file beyond `size` bytes (Python ignores SIGXFSZ)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def content(folder: Path) -> dict[str, bytes]:
    """Return every file below `folder`, hidden ones included."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def fail_from(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, nth: int) -> None:
    """Make the `nth` call of `owner.name` fail as a broken disk would; others work."""
    real, calls = getattr(owner, name), []

    def failing(*args, **kwargs):
        calls.append(args)
        if len(calls) == nth:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, failing)


def test_writes_bytes_and_text_and_makes_the_folders_above(tmp_path):
    atomic_write(tmp_path / "a" / "b" / "bytes", b"\x00\xff")
    atomic_write(tmp_path / "text", "Grüße\n")
    assert content(tmp_path) == {"a/b/bytes": b"\x00\xff", "text": "Grüße\n".encode()}


def test_replaces_the_old_content_and_leaves_nothing_else(tmp_path):
    for text in ("first and longer", "second"):
        atomic_write(tmp_path / "file", text)
    assert content(tmp_path) == {"file": b"second"}
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, GeneratorExit])
def test_a_block_that_fails_leaves_the_old_file(tmp_path, error):
    atomic_write(tmp_path / "file", "old")
    with pytest.raises(error), atomic_file(tmp_path / "file") as file:
        file.write(b"half of the n")
        raise error
    assert content(tmp_path) == {"file": b"old"}


def test_the_old_file_stands_until_the_block_ends(tmp_path):
    atomic_write(tmp_path / "file", "old")
    with atomic_file(tmp_path / "file") as file:
        file.write(b"new")
        file.flush()
        assert (tmp_path / "file").read_bytes() == b"old"
    assert (tmp_path / "file").read_bytes() == b"new"


@pytest.mark.parametrize("size", [0, 1, 99, 4095, 4096, 99_999])
def test_a_disk_that_refuses_is_an_error_and_leaves_the_old_file(tmp_path, size):
    atomic_write(tmp_path / "file", "old")
    with largest_file(size), pytest.raises(MobileMoEError, match="File too large") as caught:
        atomic_write(tmp_path / "file", b"x" * 100_000)
    assert str(tmp_path / "file") in caught.value.message
    assert content(tmp_path) == {"file": b"old"}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named_as_such(tmp_path, code):
    full = pytest.raises(MobileMoEError, match="the disk is full")
    with full as caught, atomic_file(tmp_path / "file"):
        raise OSError(code, os.strerror(code))
    assert caught.value.hint == "free some space and run again"
    assert content(tmp_path) == {}


FILL_TMPFS = """
import sys
from pathlib import Path
from mobilemoe.atomic import atomic_write
from mobilemoe.errors import MobileMoEError
folder = Path(sys.argv[1])
atomic_write(folder / "file", "old")
try:
    atomic_write(folder / "file", b"x" * 200_000)
except MobileMoEError as error:
    print(error)
print(sorted(p.name for p in folder.iterdir()), (folder / "file").read_text())
"""


def test_a_really_full_disk(tmp_path):
    mount = f"mount -t tmpfs -o size=64k none {tmp_path}"
    command = ["unshare", "-rm", "sh", "-c"]
    try:
        allowed = subprocess.run([*command, mount], capture_output=True).returncode == 0
    except FileNotFoundError:
        allowed = False
    if not allowed:
        pytest.skip("this system lets nobody mount a small disk")
    script = tmp_path.with_suffix(".py")
    script.write_text(FILL_TMPFS)
    run = [*command, f"{mount} && exec {sys.executable} {script} {tmp_path}"]
    output = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    assert "the disk is full" in output
    assert output.endswith("['file'] old\n")


@pytest.mark.parametrize(("owner", "name"), [(os, "fsync"), (Path, "replace"), (Path, "chmod")])
def test_a_broken_disk_leaves_the_old_file(tmp_path, monkeypatch, owner, name):
    atomic_write(tmp_path / "file", "old")
    fail_from(monkeypatch, owner, name, 1)
    with pytest.raises(MobileMoEError, match="cannot write"):
        atomic_write(tmp_path / "file", "new")
    monkeypatch.undo()
    assert content(tmp_path) == {"file": b"old"}


def test_rejects_a_path_below_a_file_and_a_path_that_is_a_folder(tmp_path):
    atomic_write(tmp_path / "file", "old")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "inside").write_text("kept")
    for path in (tmp_path / "file" / "below", tmp_path / "folder"):
        with pytest.raises(MobileMoEError, match="cannot write"):
            atomic_write(path, "new")
    assert content(tmp_path) == {"file": b"old", "folder/inside": b"kept"}


def fill(folder: Path, text: str, names: tuple[str, ...] = ("a", "b")) -> None:
    with atomic_folder(folder) as temporary:
        for name in names:
            (temporary / name).write_text(text)


def test_folder_appears_whole_and_replaces_the_old_one(tmp_path):
    fill(tmp_path / "deep" / "folder", "old", ("a", "only-old"))
    fill(tmp_path / "deep" / "folder", "new", ("a", "b"))
    assert content(tmp_path) == {"deep/folder/a": b"new", "deep/folder/b": b"new"}
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["folder"]
    assert stat.S_IMODE((tmp_path / "deep" / "folder").stat().st_mode) == 0o755


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("existed", [False, True])
def test_a_block_that_fails_leaves_the_old_folder(tmp_path, error, existed):
    if existed:
        fill(tmp_path / "folder", "old")
    before = content(tmp_path)
    with pytest.raises(error), atomic_folder(tmp_path / "folder") as temporary:
        (temporary / "a").write_text("half")
        raise error
    assert content(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == (["folder"] if existed else [])


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize("nth", [1, 2])
def test_a_swap_in_two_steps_that_fails_half_way_is_undone(tmp_path, monkeypatch, nth, error):
    """Where names cannot be exchanged in one step, two renames do it."""
    fill(tmp_path / "folder", "old")
    monkeypatch.setattr(atomic, "_exchange", lambda first, second: False)
    fail_once(monkeypatch, nth, error)
    with pytest.raises((MobileMoEError, KeyboardInterrupt)):
        fill(tmp_path / "folder", "new")
    monkeypatch.undo()
    assert content(tmp_path) == {"folder/a": b"old", "folder/b": b"old"}
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def fail_once(monkeypatch, nth: int, error: type[BaseException]) -> None:
    """Let only the `nth` rename of a folder fail."""
    real, calls = Path.rename, []

    def rename(path: Path, target: Path) -> Path:
        calls.append(path)
        if len(calls) == nth:
            raise error("no")
        return real(path, target)

    monkeypatch.setattr(Path, "rename", rename)


@pytest.mark.parametrize("steps", [1, 2])
def test_a_replaced_folder_leaves_nothing_of_the_old_one(tmp_path, monkeypatch, steps):
    if steps == 2:
        monkeypatch.setattr(atomic, "_exchange", lambda first, second: False)
    fill(tmp_path / "folder", "old", ("a", "only-old"))
    fill(tmp_path / "folder", "new", ("a",))
    assert content(tmp_path) == {"folder/a": b"new"}
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_an_empty_folder_is_filled_and_stays_the_same_one(tmp_path, monkeypatch):
    folder = tmp_path / "here"
    folder.mkdir()
    inode = folder.stat().st_ino
    monkeypatch.chdir(folder)
    fill(Path(), "new")
    assert folder.stat().st_ino == inode
    assert content(folder) == {"a": b"new", "b": b"new"}
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_what_a_killed_writer_left_in_an_empty_folder_is_no_content(tmp_path):
    (tmp_path / "here" / ".here.tmp-abcd").mkdir(parents=True)
    fill(tmp_path / "here", "new")
    assert (tmp_path / "here" / "a").read_text() == "new"


def test_filling_puts_the_last_file_last_and_takes_everything_back(tmp_path, monkeypatch):
    folder = tmp_path / "here"
    folder.mkdir()
    fail_once(monkeypatch, 3, OSError)
    with pytest.raises(MobileMoEError), atomic_folder(folder, last="a") as temporary:
        for name in ("a", "b", "c"):
            (temporary / name).write_text(name)
    monkeypatch.undo()
    assert list(folder.iterdir()) == []
    order = []
    real = Path.rename
    monkeypatch.setattr(Path, "rename", lambda p, t: (order.append(p.name), real(p, t))[1])
    with atomic_folder(folder, last="a") as temporary:
        for name in ("a", "b", "c"):
            (temporary / name).write_text(name)
    assert order == ["b", "c", "a"]


def test_the_current_folder_with_content_is_not_replaced_under_its_user(tmp_path, monkeypatch):
    fill(tmp_path / "folder", "old")
    monkeypatch.chdir(tmp_path / "folder")
    with pytest.raises(MobileMoEError, match="the current folder is in it"):
        fill(Path(), "new")
    assert content(tmp_path) == {"folder/a": b"old", "folder/b": b"old"}


def test_rejects_a_folder_where_a_file_stands(tmp_path):
    (tmp_path / "file").write_text("old")
    with pytest.raises(MobileMoEError, match="a file of that name is there"):
        fill(tmp_path / "file", "new")
    assert content(tmp_path) == {"file": b"old"}


def test_a_link_to_a_folder_stays_a_link(tmp_path):
    fill(tmp_path / "real", "old")
    (tmp_path / "link").symlink_to("real")
    fill(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]
    assert (tmp_path / "real" / "a").read_text() == "new"
