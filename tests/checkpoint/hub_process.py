"""A process that fetches models of the hub, in an environment of its own.

huggingface_hub reads most of its environment when it is imported, so every environment needs a
process. `python hub_process.py JOB` does one job. `python hub_process.py` alone imports the
library, reads jobs from stdin and forks for each, so that the next job finds nothing of the last.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import mobilemoe.checkpoint.hub as hub
from mobilemoe.errors import MobileMoEError

LONGEST = 120  # seconds
CHUNK = 100_000  # bytes; the library's own chunks are larger than the model that is served


def run(job: dict[str, Any]) -> None:
    """Make the calls of `job` and write what each gave to its results file.

    Waits between retries are skipped. stdout is left to whatever the library prints.
    """
    from huggingface_hub import constants

    time.sleep = lambda seconds: None
    constants.DOWNLOAD_CHUNK_SIZE = CHUNK
    results = []
    for call in job["calls"]:
        try:
            results.append(
                {"value": str(getattr(hub, call["name"])(*call["args"], **call["options"]))}
            )
        except MobileMoEError as error:
            kind = type(error).__name__
            results.append({"kind": kind, "message": error.message, "hint": error.hint})
    Path(job["results"]).write_text(json.dumps(results))


def serve() -> None:
    """Fork for every job on stdin and answer with its exit status on stdout."""
    from huggingface_hub import HfApi, hf_hub_download  # noqa: F401  (slow to import)

    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            os._exit(_in_child(json.loads(line)))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _in_child(job: dict[str, Any]) -> int:
    signal.alarm(LONGEST)
    for descriptor in (1, 2):
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        os.dup2(os.open(job["streams"][descriptor - 1], flags), descriptor)
    os.environ.update(job["late_environment"])
    try:
        run(job)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


if __name__ == "__main__":
    if len(sys.argv) == 2:
        run(json.loads(sys.argv[1]))
    else:
        serve()
