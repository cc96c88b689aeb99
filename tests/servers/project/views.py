"""Views that write a token each, one way or the other, and answer with it."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from asgiref.sync import sync_to_async
from django.db import connection, transaction
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse

from .models import Write

#: How long a request is busy with something that is not the database, in seconds.
ELSEWHERE_S = 0.005
#: How long anybody waits for others, in seconds.
PATIENCE_S = 30.0
#: How many of the last writes are streamed, and in how many parts.
STREAMED, CHUNK = 20, 5


def asked(sql: str) -> Any:
    """Return what the server answers."""
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0]


def assert_clean() -> None:
    """Nobody's session state is in this session; see `state`."""
    assert asked("SHOW lock_timeout") == "0"


@transaction.non_atomic_requests
def health(request: HttpRequest) -> JsonResponse:
    """What this process' pool says about itself; no database is asked."""
    stats = _stats()
    return JsonResponse({"pid": os.getpid(), "size": stats.size, "in_use": stats.in_use})


@transaction.non_atomic_requests
def write(request: HttpRequest, token: str) -> HttpResponse:
    """Read, do something else, write."""
    assert_clean()
    time.sleep(ELSEWHERE_S)
    Write.objects.create(token=token)
    return HttpResponse(token)


def atomic(request: HttpRequest, token: str) -> HttpResponse:
    """The same in one transaction: that of ATOMIC_REQUESTS."""
    pid = asked("SELECT pg_backend_pid()")
    write = Write.objects.create(token=f"{token} unfinished")
    time.sleep(ELSEWHERE_S)
    write.token = token
    write.save()
    assert asked("SELECT pg_backend_pid()") == pid
    return HttpResponse(token)


def fails(request: HttpRequest, token: str) -> HttpResponse:
    """Write in a transaction that is rolled back."""
    Write.objects.create(token=token)
    raise RuntimeError("this request fails")


def idle(request: HttpRequest, ms: int) -> HttpResponse:
    """Hold a connection for so long, and do nothing with it."""
    asked("SELECT count(*) FROM project_write")
    time.sleep(ms / 1000)
    return HttpResponse()


@transaction.non_atomic_requests
def stream(request: HttpRequest, token: str) -> StreamingHttpResponse:
    """Write, then send the last writes from a server-side cursor, the own one first."""
    last = _last(Write.objects.create(token=token))

    def lines() -> Iterator[str]:
        for found in last.iterator(chunk_size=CHUNK):
            yield f"{found.token}\n"

    return StreamingHttpResponse(lines())


@transaction.non_atomic_requests
def state(request: HttpRequest, token: str) -> HttpResponse:
    """Set something in the session, which the rest of the request finds there."""
    assert_clean()
    with connection.cursor() as cursor:
        cursor.execute("SET lock_timeout = '7s'")
    time.sleep(ELSEWHERE_S)
    assert asked("SHOW lock_timeout") == "7s"
    Write.objects.create(token=token)
    return HttpResponse(token)


@transaction.non_atomic_requests
async def asynchronous(request: HttpRequest, token: str) -> HttpResponse:
    """Read, await something else, write."""
    await sync_to_async(assert_clean)()
    await asyncio.sleep(ELSEWHERE_S)
    await Write.objects.acreate(token=token)
    return HttpResponse(token)


@transaction.non_atomic_requests
async def asynchronous_stream(request: HttpRequest, token: str) -> StreamingHttpResponse:
    """As `stream` does it, asynchronously."""
    last = _last(await Write.objects.acreate(token=token))

    async def lines() -> AsyncIterator[str]:
        async for found in last.aiterator(chunk_size=CHUNK):
            yield f"{found.token}\n"

    return StreamingHttpResponse(lines())


def _last(write: Write) -> Any:
    return Write.objects.filter(pk__lte=write.pk).order_by("-pk")[:STREAMED]


#: Set when everybody is in the queue, and the connections can be let go.
_everybody = threading.Event()
_arriving = asyncio.Lock()
_numbers = itertools.count()


def _stats() -> Any:
    return connection._runner.find_pool().pool.stats()  # type: ignore[attr-defined]


def hold(request: HttpRequest) -> HttpResponse:
    """Keep a connection, in a transaction, until everybody else waits for one."""
    asked("SELECT 1")
    assert _everybody.wait(PATIENCE_S)
    return JsonResponse({})


@transaction.non_atomic_requests
async def share(request: HttpRequest, of: int) -> JsonResponse:
    """Two queries around an await, where *of* requests are in the queue before the first is served.

    They come one by one: only then is their order in the queue known.
    """
    async with _arriving:
        before = await _until(lambda stats: stats.in_use == stats.max_size)
        first = asyncio.ensure_future(sync_to_async(_occupy)())
        await _until(lambda stats: stats.waiting > before.waiting)
        number = next(_numbers)
    if number == of - 1:
        _everybody.set()
    queries = [await first]
    await asyncio.sleep(ELSEWHERE_S)
    queries.append(await sync_to_async(_occupy)())
    return JsonResponse({"number": number, "queries": queries})


async def _until(happened: Callable[[Any], bool]) -> Any:
    for _ in range(int(PATIENCE_S / 0.001)):
        if happened(stats := _stats()):
            return stats
        await asyncio.sleep(0.001)
    raise TimeoutError


def _occupy() -> tuple[int, float]:
    """Occupy a connection for a moment; return which, and when by the server's clock."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid(), clock_timestamp() FROM pg_sleep(0.001)")
        pid, moment = cursor.fetchone()
        return pid, moment.timestamp()


def server_error(request: HttpRequest) -> HttpResponse:
    """Say what went wrong, for who reads why a test has failed."""
    return HttpResponse(traceback.format_exc(), status=500, content_type="text/plain")
