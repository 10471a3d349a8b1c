"""A job of some ranks in which one comes to harm.

    torchrun ... parallel_job.py OUT FAULT

Eight steps with a checkpoint after every third; the last rank suffers FAULT (none, kill, stop,
spin) in step 4 of the job's first attempt. Rank 0 writes the final state.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch
from parallel_worker import Layout, keep, trainer

from mobilemoe.recipe import Parallel
from mobilemoe.train.parallel import Ranks

STEPS, EVERY, FAULTY_STEP, HANG_TIMEOUT_S = 8, 3, 4, 6.0


def suffer(fault: str) -> None:
    """Do to this process what `fault` says."""
    if fault == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif fault == "spin":
        while True:
            sum(range(1000))


def main() -> None:
    """Train, resume, suffer."""
    out, fault = Path(sys.argv[1]), sys.argv[2]
    torch.set_num_threads(1)
    ranks = Ranks.from_environment(Parallel(2, HANG_TIMEOUT_S), "cpu")
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    job = trainer(ranks, Layout("job", ranks.size, 2, steps=STEPS))
    job.resume(out)
    (out / f"attempt{attempt}-rank{ranks.rank}.txt").write_text(f"{job.step}")
    for _ in job.run(out):
        if job.step % EVERY == 0:
            job.save(out)
        if job.step == FAULTY_STEP and attempt == "0" and ranks.rank == ranks.size - 1:
            suffer(fault)
    keep(job, out / "final")
    ranks.close()


if __name__ == "__main__":
    main()
