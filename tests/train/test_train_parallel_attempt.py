"""Every attempt gets its own part of the store, whatever earlier ones left in it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from torch.distributed import Store, TCPStore

from mobilemoe.errors import MobileMoEError
from mobilemoe.train.parallel.attempt import TOKEN, clean_store


@pytest.fixture
def server() -> TCPStore:
    """The store of a launcher, which outlives the attempts."""
    return TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


def attempt(server: TCPStore, size: int, ranks: range, timeout_s: float = 60.0) -> list[Store]:
    """Let `ranks` of `size` join at once; return the store that each got."""

    def join(rank: int) -> Store:
        client = TCPStore("127.0.0.1", server.port, is_master=False)
        return clean_store(client, rank, size, timeout_s)

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(join, ranks))


def assert_shared_and_clean(stores: list[Store]) -> None:
    """What one writes all read, and nobody wrote it before."""
    assert not any(store.check(["address"]) for store in stores)
    stores[0].set("address", "here")
    assert [store.get("address") for store in stores] == [b"here"] * len(stores)


def test_all_ranks_of_an_attempt_share_what_no_other_attempt_sees(server: TCPStore) -> None:
    for size in (3, 3, 2, 4):
        assert_shared_and_clean(attempt(server, size, range(size)))


@pytest.mark.parametrize("ranks", [range(2), range(1, 3), range(1)])
def test_an_attempt_that_never_got_complete_does_no_harm(server: TCPStore, ranks: range) -> None:
    attempt(server, 3, range(3))
    with pytest.raises(MobileMoEError, match="have not found each other") as error:
        attempt(server, 3, ranks, timeout_s=0.3)
    assert error.value.hint
    assert_shared_and_clean(attempt(server, 3, range(3)))


def test_a_dead_rank_0_answers_nobody(server: TCPStore) -> None:
    server.set(TOKEN, "of a dead one")
    server.set("of a dead one/hello/1", "another dead one")
    server.set("of a dead one/welcome/1/another dead one", "1")
    assert_shared_and_clean(attempt(server, 2, range(2)))
