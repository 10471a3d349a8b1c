"""`python -m mobilemoe` is `mobilemoe`; `torchrun ... -m mobilemoe train` starts many of it."""

from __future__ import annotations

from mobilemoe.cli import main

if __name__ == "__main__":
    main()
