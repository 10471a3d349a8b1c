"""What several rooms' tests share: one small, real run of the whole chain."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from command_line import DEMO_TOKENS, mobilemoe

# A suite started in the background of a script ignores Ctrl-C, and so would every process under
# test that is sent one.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `mobilemoe demo` has been run; the run is in runs/demo."""
    folder = tmp_path_factory.mktemp("demo")
    done = mobilemoe("demo", "--tokens", str(DEMO_TOKENS), cwd=folder)
    assert done.returncode == 0, done.stderr
    (folder / "stdout.txt").write_text(done.stdout)
    (folder / "stderr.txt").write_text(done.stderr)
    return folder
