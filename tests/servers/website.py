"""The project where it is served, and its clients."""

from __future__ import annotations

import asyncio
import http.client
import itertools
import json
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

from .process import PATIENCE_S, Process

#: Views that fail, and say so.
FAILING = {"fails"}


class Site:
    """The project, at *port* of this machine, served by *process*."""

    def __init__(self, port: int, process: Process) -> None:
        self.port, self.process = port, process
        #: The tokens that were answered for, and are to be found in the database.
        self.acknowledged: list[str] = []

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)

    def answers(self) -> int | None:
        """Return which process answers, if any does; one that ends may have sent half an answer."""
        try:
            return self.health()["pid"]
        except (OSError, http.client.HTTPException, json.JSONDecodeError):
            return None

    def health(self) -> dict[str, int]:
        with closing(self.connect()) as client:
            status, body = _get(client, "/health")
        assert status == 200, body
        found: dict[str, int] = json.loads(body)
        return found

    def healths(self, processes: int) -> list[dict[str, int]]:
        """Return the health of each of the site's processes."""
        found: dict[int, dict[str, int]] = {}
        for _ in range(100):
            with ThreadPoolExecutor(8) as threads:
                for health in threads.map(lambda _: self.health(), range(8)):
                    found[health["pid"]] = health
            if len(found) >= processes:
                break
        assert len(found) == processes
        return list(found.values())

    def wait_for_rest(self, processes: int = 1) -> None:
        """Wait until none of the processes leases anything: a request ends after its answer."""
        deadline = time.monotonic() + PATIENCE_S
        while any(found := [health["in_use"] for health in self.healths(processes)]):
            assert time.monotonic() < deadline, found
            time.sleep(0.02)

    def load(self, views: Sequence[str], *, requests: int, clients: int) -> None:
        """Send *requests* for each of the *views* in turn; each is answered as it is to be."""
        urls = [
            (view, f"{view}-{uuid.uuid4().hex}")
            for view, _ in zip(itertools.cycle(views), range(requests), strict=False)
        ]

        def work(number: int) -> None:
            with closing(self.connect()) as client:
                for view, token in urls[number::clients]:
                    status, body = _get(client, f"/{view}/{token}")
                    if view in FAILING:
                        assert (status, "this request fails" in body) == (500, True), body
                        continue
                    assert (status, body.partition("\n")[0]) == (200, token), body
                    self.acknowledged.append(token)

        with ThreadPoolExecutor(clients) as threads:
            list(threads.map(work, range(clients)))

    def at_once(self, *paths: str) -> list[Any]:
        """Send a request for each of *paths*, all at the same time; return what their JSON says."""

        async def get(path: str) -> Any:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            head = f"GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n"
            writer.write(head.encode())
            answer = (await reader.read()).decode()
            writer.close()
            await writer.wait_closed()
            assert answer.startswith("HTTP/1.1 200 "), answer
            return json.loads(answer.partition("\r\n\r\n")[2])

        async def gather() -> list[Any]:
            return await asyncio.wait_for(asyncio.gather(*map(get, paths)), 60)

        return asyncio.run(gather())


def _get(client: http.client.HTTPConnection, path: str) -> tuple[int, str]:
    client.request("GET", path)
    response = client.getresponse()
    return response.status, response.read().decode()
