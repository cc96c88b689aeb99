"""The comparison: measures one engine after the other on the same server and data."""

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
from .server import Project, Site, Workdir, postgres

#: (name, ENGINE), in the order in which they are measured.
ENGINES = (
    ("Django's native pool", "django.db.backends.postgresql"),
    ("relet", "relet.backends.psycopg"),
)

#: Seconds before measuring, in which connections open, caches fill, and the clients, which all
#: start at once, fall out of step.
WARM_UP_S = 1.5

#: Seconds between updates of the progress bar.
_TICK_S = 0.2


@dataclass(frozen=True)
class Settings:
    """The parameters of a comparison.

    :param seconds: seconds to measure each engine.
    :param clients: number of clients, and of server threads.
    :param connections: size of the pool.
    """

    seconds: float
    clients: int
    connections: int


def compare(
    settings: Settings, interruption: Interruption, progress: Progress
) -> Sequence[Measurement]:
    """Measure each engine. Every process that was started has ended on return.

    :raises DemoError: a server failed to start, or stopped.
    :raises Interrupted: a signal asked the demo to end.
    """
    with tempfile.TemporaryDirectory(prefix="relet-demo-") as directory, progress:
        workdir = Workdir(Path(directory))
        progress.say("Starting PostgreSQL ...")
        with postgres(workdir, interruption) as server:
            projects = [
                (name, Project(engine, server, settings.connections)) for name, engine in ENGINES
            ]
            projects[0][1].prepare(workdir, interruption)
            progress.say(
                f"{settings.clients} clients on {settings.connections} connections. Each request "
                "reads, spends 50 ms outside the database, and writes."
            )
            measurements = []
            for name, project in projects:
                with project.serve(settings.clients, workdir, interruption) as site:
                    try:
                        measurement, errors = _measure(
                            name, project.engine, site, settings, interruption, progress
                        )
                    except (OSError, http.client.HTTPException) as error:
                        raise DemoError(
                            f"{name}: the server stopped ({error}).\n{log_tail(workdir.log)}"
                        ) from error
                if errors:
                    progress.say(f"{name}: {errors[-1]}\n{log_tail(workdir.log)}")
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
        # Before the clients stop, because the last requests wait less.
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
