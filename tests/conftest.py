"""What several rooms' tests share: one small, real run of the whole chain."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

DEMO_TOKENS = 40_000


def mobilemoe(*arguments: str, cwd: Path, **options: object) -> subprocess.CompletedProcess[str]:
    """Run the installed command line as a user would."""
    program = Path(sys.executable).with_name("mobilemoe")
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        [program, *arguments], cwd=cwd, text=True, capture_output=True, timeout=600, **options
    )


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `mobilemoe demo` has been run; the run is in runs/demo."""
    folder = tmp_path_factory.mktemp("demo")
    done = mobilemoe("demo", "--tokens", str(DEMO_TOKENS), cwd=folder)
    assert done.returncode == 0, done.stderr
    (folder / "stdout.txt").write_text(done.stdout)
    (folder / "stderr.txt").write_text(done.stderr)
    return folder
