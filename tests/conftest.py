"""What all tests share: Django's settings, and a PostgreSQL server.

The server is what ``RELET_TEST_DSN``, a libpq URI, points to, else one from a wheel, for
each worker of xdist. It is started when a test first asks for it. The engine is `engine.ENGINE`.
"""

from __future__ import annotations

import gc
import os
import sys
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import django
import pytest
from django.conf import settings

from .support.dsn import database_of, parameters_for, parameters_of, uri_of
from .support.engine import ENGINE, put_small_pool

HERE = Path(__file__).parent
#: What is closed when all workers have ended, and the directory that they copy servers from.
_AFTER_ALL = pytest.StashKey[ExitStack]()
_TEMPLATE = pytest.StashKey[str]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--share",
        type=_share,
        default=(1, 1),
        metavar="N/M",
        help="of the tests that are not slow, run the Nth of M shares; each test stays in its own",
    )


def _share(text: str) -> tuple[int, int]:
    number, total = map(int, text.split("/"))
    if not 1 <= number <= total:
        raise ValueError
    return number, total


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    number, total = config.getoption("share")
    kept, left_out = [], []
    for item in items:
        mine = zlib.crc32(item.nodeid.encode()) % total == number - 1
        (kept if mine or item.get_closest_marker("slow") else left_out).append(item)
    # First what takes long, so that at the end no worker waits for another one.
    items[:] = sorted(kept, key=lambda item: item.get_closest_marker("slow") is None)
    if left_out:
        config.hook.pytest_deselected(items=left_out)


def pytest_configure() -> None:
    # Where Python is told to write no bytecode, as in many containers, each worker and each process
    # that a test starts would compile all modules anew.
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    # `python -m pytest` puts the repo's root on the path, and from there `import core`
    # would be a second copy of relet.core.
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != HERE.parent]
    default: dict[str, Any] = {"ENGINE": ENGINE}
    put_small_pool(default)
    # Whether a dead connection is found in the pool or by a statement is not to depend on time, nor
    # is it whether the catalogue is being compared.
    default.setdefault("OPTIONS", {})["policy"] = {"check_idle": 3600, "catalogue_ttl": 3600}
    settings.configure(
        DATABASES={"default": default},
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        INSTALLED_APPS=["testapp"] if (HERE / "backends" / "testapp").exists() else [],
        SECRET_KEY="there is nothing here to keep secret",
        USE_TZ=True,
    )
    django.setup()


def pytest_collection() -> None:
    # A fifth of the time that it takes goes to looking for garbage, of which there is none.
    gc.disable()


def pytest_collection_finish() -> None:
    # What is there before the first test is no garbage of a test's. Without it, to collect garbage
    # takes a hundredth of the time, and tests do so often.
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_xdist_auto_num_workers() -> int:
    """Workers, each with a server of its own; a server that is given is for one of them."""
    if "RELET_TEST_DSN" in os.environ:
        return 0
    # Two more than there are processors: a test waits, for the server and for threads. With more,
    # what each takes to import and to collect all tests is more than that.
    return 2 + (os.cpu_count() or 1)


@pytest.fixture
def garbage() -> Iterator[None]:
    """Collect what the test has lost in it: a later one does not expect its warnings."""
    yield
    gc.collect()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker, before it starts, what it has in common with the others."""
    config = node.config
    if _TEMPLATE not in config.stash:
        # Here, and not in the workers: the wheel makes a user for root's servers, and two workers
        # that do so at the same time make two of that name.
        from .support.server import new_template

        config.stash[_AFTER_ALL] = after_all = ExitStack()
        config.stash[_TEMPLATE] = str(after_all.enter_context(new_template()))
    node.workerinput["template"] = config.stash[_TEMPLATE]


def pytest_unconfigure(config: pytest.Config) -> None:
    if _AFTER_ALL in config.stash:
        config.stash[_AFTER_ALL].close()


@pytest.fixture(scope="session")
def template(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A server's data directory with nothing in it, to copy."""
    from .support.server import new_template

    if worker := getattr(request.config, "workerinput", None):
        yield Path(worker["template"])
        return
    with new_template() as made:
        yield made


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """What ``DATABASES[alias]`` says to reach a PostgreSQL server; for `dict.update`."""
    if dsn := os.environ.get("RELET_TEST_DSN"):
        yield database_of(parameters_of(dsn))
        return
    from .support.server import VOLATILE, new_server

    with new_server(request.getfixturevalue("template"), VOLATILE) as made:
        yield database_of(made.local)


@pytest.fixture(scope="session")
def server_uri(server: dict[str, Any]) -> str:
    """The libpq URI of the server."""
    return uri_of(parameters_for(server))


@pytest.fixture(scope="session")
def database(server: dict[str, Any]) -> Iterator[None]:
    """Django's test database for the alias ``default``, with the tables of the test app."""
    from django.db import connection, connections

    from relet.backends.pools import pools

    options = {**connection.settings_dict["OPTIONS"], **server.get("OPTIONS", {})}
    connection.settings_dict.update({**server, "OPTIONS": options})
    name = connection.settings_dict["NAME"]
    connection.creation.create_test_db(verbosity=0, autoclobber=True)
    yield
    connection.creation.destroy_test_db(name, verbosity=0)
    connections.close_all()
    pools.close_all()
