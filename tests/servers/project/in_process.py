"""Django's test client, in a test run of Django's."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from django.db import close_old_connections, connection
from django.test import AsyncClient, Client, TestCase, TransactionTestCase

from .models import Write
from .views import asked, assert_clean

SYNC = ("write", "atomic", "stream", "state")


def get(client: Client, view: str, token: str) -> str:
    response = client.get(f"/{view}/{token}")
    assert response.status_code == 200, response.content
    return response.getvalue().decode().partition("\n")[0]


def in_use() -> int:
    return connection._runner.find_pool().pool.stats().in_use  # type: ignore[attr-defined,no-any-return]


class InTransactions(TestCase):
    """Each test is one transaction, of which the client is part."""

    def tearDown(self) -> None:
        assert in_use() == 1

    def test_client_is_in_the_transaction(self) -> None:
        for view in ("write", "atomic", "stream"):
            assert get(self.client, view, view) == view
        assert Write.objects.count() == 3

    def test_nothing_is_left(self) -> None:
        assert Write.objects.count() == 0


class Committed(TransactionTestCase):
    """The client keeps Django from closing connections at the end of a request."""

    def tearDown(self) -> None:
        close_old_connections()
        assert in_use() == 0

    def test_client(self) -> None:
        for view in ("write", "atomic", "stream"):
            assert get(self.client, view, view) == view
            assert in_use() == 0
        self.client.raise_request_exception = False
        assert self.client.get("/fails/fails").status_code == 500
        assert in_use() == 0
        assert Write.objects.count() == 3

    def test_session_state_stays(self) -> None:
        get(self.client, "state", "state")
        assert in_use() == 1
        assert asked("SHOW lock_timeout") == "7s"
        close_old_connections()
        assert_clean()

    def test_clients_in_threads(self) -> None:
        def work(number: int) -> None:
            try:
                for view in SYNC:
                    get(Client(), view, f"{view}-{number}")
            finally:
                close_old_connections()

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(work, range(16)))
        assert Write.objects.count() == 16 * len(SYNC)

    async def test_async_client(self) -> None:
        client = AsyncClient()
        for view in ("async", "write", "atomic", "state"):
            response = await client.get(f"/{view}/{view}")
            assert response.status_code == 200, response.content
        assert await Write.objects.acount() == 4
