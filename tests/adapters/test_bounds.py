"""I18: no more sessions than the pool's size and one, and nobody waits longer than its timeout."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from relet.core import PoolConfig, registry

from ..support.silent_server import SilentServer
from ..support.waiting import until

SIZE, CLIENTS = 3, 24


def ours() -> list[str]:
    return [
        name
        for name, spec in registry.specs().items()
        if spec.adapter.startswith("relet.") and not registry.missing(spec)
    ]


@pytest.fixture
def silent() -> Iterator[SilentServer]:
    with SilentServer() as server:
        yield server


@pytest.fixture(params=ours())
def make(request: pytest.FixtureRequest, parameters: dict[str, str]) -> Iterator[Any]:
    adapter = registry.load(request.param)
    made = []

    def make(server: SilentServer, timeout: float, **options: Any) -> Any:
        told = {**parameters, "host": server.HOST, "port": str(server.port)}
        given = {**adapter.options_for(size=SIZE, timeout=timeout), **options}
        made.append(adapter(PoolConfig("silent", told, given)))
        return made[-1]

    yield make
    for pool in made:
        pool.close()


class Client(threading.Thread):
    """As a request does: it opens the pool, if need be, and takes a connection."""

    def __init__(self, pool: Any) -> None:
        super().__init__(daemon=True)
        self.pool = pool
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.pool.open()
            self.pool.checkin(self.pool.checkout())
        except BaseException as error:
            self.error = error

    def end(self) -> BaseException | None:
        self.join(20)
        assert not self.is_alive(), "it waits on"
        return self.error


def test_a_server_that_says_nothing(make: Any, silent: SilentServer) -> None:
    pool = make(silent, 0.3)
    for _ in range(2):
        errors = [client.end() for client in [Client(pool) for _ in range(CLIENTS)]]
        assert {isinstance(error, pool.dbapi.OperationalError) for error in errors} == {True}
        assert all("DATABASES['silent']" in str(error) for error in errors)
    assert 1 <= silent.most <= SIZE + 1
    assert (pool.stats().in_use, pool.stats().waiting) == (0, 0)
    assert pool.stats().size <= SIZE


def test_those_who_open_are_told_that_it_is_closed(make: Any, silent: SilentServer) -> None:
    pool = make(silent, 60)
    clients = [Client(pool) for _ in range(4)]
    until(lambda: silent.most)
    pool.close()
    for client in clients:
        assert isinstance(error := client.end(), pool.dbapi.OperationalError)
        assert "closed" in str(error)


def test_a_server_that_goes_is_told_of(make: Any, silent: SilentServer) -> None:
    """Whoever comes next is told of it, too, and not of time."""
    pool = make(silent, 20)
    client = Client(pool)
    until(lambda: silent.most)
    silent.end()
    for error in client.end(), Client(pool).end():
        assert isinstance(error, pool.dbapi.OperationalError)
        assert "DATABASES['silent']: cannot connect" in str(error)
