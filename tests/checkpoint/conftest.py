"""The stand-in hub and a machine that fetches from it, for every test that asks for them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hub_support import Machine, hub_and_machine

from hub_server import HubServer


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[HubServer, Machine]]:
    """The hub and the machine of one file's tests; each test finds them empty."""
    with hub_and_machine(tmp_path_factory.mktemp("home")) as pair:
        yield pair


@pytest.fixture
def server(both: tuple[HubServer, Machine]) -> HubServer:
    both[0].clear()
    return both[0]


@pytest.fixture
def machine(both: tuple[HubServer, Machine]) -> Machine:
    both[1].clear()
    return both[1]
