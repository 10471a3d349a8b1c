"""Running the installed command line as a user would."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

DEMO_TOKENS = 40_000


def mobilemoe(*arguments: str, cwd: Path, **options: object) -> subprocess.CompletedProcess[str]:
    """Run the installed command line as a user would."""
    program = Path(sys.executable).with_name("mobilemoe")
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        [program, *arguments], cwd=cwd, text=True, capture_output=True, timeout=600, **options
    )
