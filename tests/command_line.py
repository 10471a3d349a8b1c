"""Running the installed command line as a user would."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hub_server import Repo, serve_hub

DEMO_TOKENS = 40_000
TOKEN = "hf_of_somebody_with_access"


def mobilemoe(*arguments: str, cwd: Path, **options: object) -> subprocess.CompletedProcess[str]:
    """Run the installed command line as a user would."""
    program = Path(sys.executable).with_name("mobilemoe")
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        [program, *arguments], cwd=cwd, text=True, capture_output=True, timeout=600, **options
    )


@contextmanager
def hub_of(repo_id: str, folder: Path, home: Path) -> Iterator[dict[str, str]]:
    """Serve the files of `folder` as a gated repository of a stand-in hub on this machine.

    Yields the environment of somebody who may read it, whose cache is in `home`.
    """
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with serve_hub() as server:
        server.tokens.add(TOKEN)
        server.repos[repo_id] = Repo.of(files, gated=True, members={TOKEN})
        yield {
            "HF_ENDPOINT": server.url,
            "HF_HOME": str(home),
            "HF_TOKEN": TOKEN,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
