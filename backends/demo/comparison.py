"""The comparison: one engine after the other, on the same server and the same data."""

from __future__ import annotations

import http.client
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .clients import Clients
from .errors import DemoError
from .interruption import Interruption
from .measurement import Measurement, percentile
from .process import log_tail
from .progress import Progress
from .server import Place, Project, Site, postgres

#: (name, ENGINE), in the order they are measured.
ENGINES = (
    ("Django's native pool", "django.db.backends.postgresql"),
    ("relet", "relet.backends.psycopg"),
)

#: Not measured, in seconds: connections are opened, caches filled, and clients, which
#: all start at once, fall out of step.
WARM_UP_S = 1.5

#: How often the progress is shown, in seconds.
_TICK_S = 0.2


@dataclass(frozen=True)
class Settings:
    """How to compare.

    :param seconds: how long to measure each engine.
    :param clients: how many send requests at the same time, and threads that serve them.
    :param connections: the size of the pool.
    """

    seconds: float
    clients: int
    connections: int


def compare(
    settings: Settings, interruption: Interruption, progress: Progress
) -> Sequence[Measurement]:
    """Measure each engine. Nothing is left running, whatever happens.

    :raises DemoError: something does not start, or stops.
    :raises Interrupted: a signal asked to end.
    """
    with tempfile.TemporaryDirectory(prefix="relet-demo-") as directory, progress:
        place = Place(Path(directory))
        progress.say("Starting PostgreSQL ...")
        with postgres(place, interruption) as server:
            projects = [
                (name, Project(engine, server, settings.connections)) for name, engine in ENGINES
            ]
            projects[0][1].prepare(place, interruption)
            progress.say(
                f"{settings.clients} clients on {settings.connections} connections; each request "
                "reads, is busy elsewhere for 50 ms, and writes."
            )
            measurements = []
            for name, project in projects:
                with project.serve(settings.clients, place, interruption) as site:
                    try:
                        measurement, errors = _measure(
                            name, project.engine, site, settings, interruption, progress
                        )
                    except (OSError, http.client.HTTPException) as error:
                        raise DemoError(
                            f"{name}: the server stopped serving ({error}).\n{log_tail(place.log)}"
                        ) from error
                if errors:
                    progress.say(f"{name}: {errors[-1]}\n{log_tail(place.log)}")
                measurements.append(measurement)
            return measurements


def _measure(
    name: str,
    engine: str,
    site: Site,
    settings: Settings,
    interruption: Interruption,
    progress: Progress,
) -> tuple[Measurement, Sequence[str]]:
    orders_before = site.orders()
    with Clients(site, settings.clients) as clients, progress.bar(name, settings.seconds) as bar:
        interruption.sleep(min(WARM_UP_S, settings.seconds))
        site.restart_stats()
        answered_before, started = clients.answered(), time.perf_counter()
        while (elapsed := time.perf_counter() - started) < settings.seconds:
            interruption.sleep(min(_TICK_S, settings.seconds - elapsed))
            bar.update(time.perf_counter() - started, clients.answered() - answered_before)
        ended = time.perf_counter()
        # While the clients still send: once they stop, waiting gets rarer.
        stats = site.stats()
        clients.stop()
        while not clients.stopped():
            interruption.sleep(0.02)
    measured = [
        answer.latency_ms for answer in clients.answers() if started <= answer.finished < ended
    ]
    measurement = Measurement(
        name=name,
        engine=engine,
        seconds=ended - started,
        requests=len(measured),
        latency_p50_ms=percentile(measured, 50),
        latency_p99_ms=percentile(measured, 99),
        wait_ms=stats["wait_ms"] / max(len(measured), 1),
        in_use_mean=stats["in_use_mean"],
        in_use_most=int(stats["in_use_most"]),
        answers=clients.answered(),
        rows=site.orders() - orders_before,
        errors=len(clients.errors()),
    )
    return measurement, clients.errors()
