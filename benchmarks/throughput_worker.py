"""One process of `throughput`: threads that run requests, and what these took.

It reads a task, which is a line of JSON, and prints ``ready`` when each thread has run a request.
Then it waits for another line, so that several processes begin at the same time. At the end it
prints its figures as JSON.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import sys
import threading
import time
from collections import Counter
from typing import Any

import common

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

#: A time-out in seconds that only a bug can reach.
PATIENCE = 60


def main() -> None:
    task = json.loads(sys.stdin.readline())
    limit = task["warmup"] + task["seconds"] + 3 * PATIENCE
    faulthandler.dump_traceback_later(limit, exit=True)
    print(json.dumps(work(task)))


def work(task: dict[str, Any]) -> dict[str, Any]:
    """Run requests in threads; return what was measured.

    :raises SystemExit: a request has failed; the text says how.
    """
    if task["one_cpu"]:
        common.stay_on_one_cpu()
    common.configure({"default": task["database"]})
    from django.core import signals
    from django.db import connections

    elsewhere = task["elsewhere_ms"] / 1000
    finished: list[list[tuple[float, float]]] = []
    errors: list[str] = []
    ready = threading.Barrier(task["threads"] + 1)
    begun, stopped = threading.Event(), threading.Event()

    def query() -> None:
        with connections["default"].cursor() as cursor:
            cursor.execute("SELECT 1")
            cursor.fetchone()

    def request() -> None:
        signals.request_started.send(sender=None)
        query()
        if elsewhere:
            time.sleep(elsewhere)
        query()
        signals.request_finished.send(sender=None)

    def requests() -> None:
        mine: list[tuple[float, float]] = []
        finished.append(mine)
        try:
            # The first one connects.
            request()
            ready.wait()
            begun.wait()
            while not stopped.is_set():
                started = time.perf_counter()
                request()
                now = time.perf_counter()
                mine.append((now, now - started))
        except threading.BrokenBarrierError:
            pass  # another thread has failed
        except Exception as error:  # noqa: BLE001  reported below
            errors.append(f"{type(error).__name__}: {error}")
            ready.abort()
        finally:
            connections["default"].close()

    threads = [threading.Thread(target=requests) for _ in range(task["threads"])]
    for thread in threads:
        thread.start()
    with contextlib.suppress(threading.BrokenBarrierError):
        ready.wait()
        print("ready", flush=True)
        sys.stdin.readline()
        begun.set()
        time.sleep(task["warmup"])
        begin, before = time.perf_counter(), usage()
        time.sleep(task["seconds"])
        end, after = time.perf_counter(), usage()
    stopped.set()
    for thread in threads:
        thread.join()
    connections["default"].close_pool()  # type: ignore[attr-defined]
    if errors:
        raise SystemExit("\n".join(f"{count}x {text}" for text, count in Counter(errors).items()))
    return {
        "seconds": end - begin,
        "took_ms": [[1000 * took for at, took in mine if begin <= at <= end] for mine in finished],
        **{name: after[name] - before[name] for name in before},
    }


def usage() -> dict[str, float]:
    """Return what this process has used so far; on Windows no context switches."""
    used: dict[str, float] = {"cpu_s": time.process_time()}
    if resource is not None:
        figures = resource.getrusage(resource.RUSAGE_SELF)
        used["voluntary_switches"] = figures.ru_nvcsw
        used["involuntary_switches"] = figures.ru_nivcsw
    return used


if __name__ == "__main__":
    main()
