"""A clean part of the job's key-value store for every attempt at running the job.

torchrun keeps one store while it restarts the ranks, so the addresses that the dead ranks left
there would be taken for those of the living, and the new group would wait for ever. Counting
restarts does not help: nodes count only their own. So rank 0 makes up a token, and the others
use it once rank 0 has answered them under it: a dead one answers nobody.
"""

from __future__ import annotations

import time
from uuid import uuid4

from torch.distributed.distributed_c10d import PrefixStore, Store

from mobilemoe.errors import MobileMoEError

TOKEN = "mobilemoe/token"
PAUSE_S = 0.05


def clean_store(store: Store, rank: int, size: int, timeout_s: float) -> Store:
    """Return the part of `store` that belongs to this attempt; all ranks get the same.

    Raises:
        MobileMoEError: if the ranks have not found each other after `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    token = _offer(store, size, deadline) if rank == 0 else _accept(store, rank, deadline)
    return PrefixStore(token, store)


def _offer(store: Store, size: int, deadline: float) -> str:
    """Publish a new token and answer every rank that greets under it."""
    token = uuid4().hex
    store.set(TOKEN, token)
    missing = set(range(1, size))
    while missing:
        for rank in sorted(missing):
            name = _read(store, f"{token}/hello/{rank}")
            if name:
                store.set(f"{token}/welcome/{rank}/{name}", "1")
                missing.remove(rank)
        _wait(deadline, f"rank 0 waits for ranks {sorted(missing)}")
    return token


def _accept(store: Store, rank: int, deadline: float) -> str:
    """Greet under whatever token is there until rank 0 answers under it."""
    name = uuid4().hex
    while True:
        token = _read(store, TOKEN)
        if token:
            store.set(f"{token}/hello/{rank}", name)
            if store.check([f"{token}/welcome/{rank}/{name}"]):
                return token
        _wait(deadline, f"rank {rank} waits for rank 0")


def _read(store: Store, key: str) -> str:
    return store.get(key).decode() if store.check([key]) else ""


def _wait(deadline: float, what: str) -> None:
    if time.monotonic() > deadline:
        raise MobileMoEError(
            f"the ranks have not found each other: {what}",
            hint="all nodes need the same --rdzv-endpoint and --rdzv-id, and a way to reach it",
        )
    time.sleep(PAUSE_S)
