"""The Python in the docs runs, and the settings in it are right by relet's own checks.

The blocks of a page run in their order, on a real server, and share their names. `docs/tutorial.md`
has a test of its own.
"""

from __future__ import annotations

import ast
import doctest
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from django.db import DataError, connection, connections, transaction

from relet import ReleasePolicy, hold, policies
from relet.backends.checks import check_databases

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = [
    str(path.relative_to(ROOT))
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    if path.name != "tutorial.md" and BLOCK.search(path.read_text())
]
#: Page -> words of a block that does not run, and why. It has to compile.
NOT_RUN = {
    "docs/audit.md": {"def test_checkout": "it is a test of its reader's"},
    "docs/metrics.md": {"relet.metrics.prometheus()": "it registers for good; see test_metrics.py"},
    "docs/other-backends.md": {"build(": "what it builds on has sessions of its own in nox"},
    "docs/pg8000.md": {"google.cloud": "it needs Google's connector"},
    "docs/policies.md": {
        "LISTEN orders": "it never ends",
        '"gentle"}': "it needs an installed plugin; see test_policies.py",
    },
    "docs/writing-an-adapter.md": {"relet_stack": "test_examples.py runs the example"},
}
#: The setting that a part of `DATABASES["default"]` begins with.
FRAGMENT = re.compile(r'"[A-Z_]+": ')


def blocks(page: str) -> list[str]:
    return BLOCK.findall((ROOT / page).read_text())


def is_run(page: str, block: str) -> bool:
    if "celery" in block and find_spec("celery") is None:
        return False
    return not any(words in block for words in NOT_RUN.get(page, ()))


def databases() -> dict[str, Any]:
    """What the settings of a reader may be."""
    default = {"ENGINE": "relet.backends.psycopg", "NAME": "shop", "OPTIONS": {}}
    return {"default": default}


def names() -> dict[str, Any]:
    """What the blocks of a page find: what is imported everywhere, and what is the reader's."""
    return {
        "DATABASES": databases(),
        "LOCK": 4711,
        "Money": type("Money", (), {}),
        "ReleasePolicy": ReleasePolicy,
        "checkout": lambda order: None,
        "order": object(),
        "app": SimpleNamespace(conf=SimpleNamespace()),
        "connection": connection,
        "get_response": lambda request: request,
        "hold": hold,
        "policies": policies,
        "request": object(),
        "tenant": SimpleNamespace(pk=1),
        "token_for": lambda host, user: "token",
        "transaction": transaction,
    }


@contextmanager
def module_of(block: str, page: dict[str, Any]) -> Iterator[None]:
    """Make the module that the first line names, such as ``# shop/db.py``, from the *page*."""
    named = re.match(r"# (\w+)/(\w+)\.py\n", block)
    if named is None:
        yield
        return
    module = ModuleType(f"{named[1]}.{named[2]}")
    vars(module).update(page)
    sys.modules.setdefault(named[1], ModuleType(named[1]))
    sys.modules[module.__name__] = module
    yield


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Returns what relet's checks say of the settings of a page; aliases are its own."""

    def check(settings: dict[str, Any], where: str) -> None:
        for alias, values in settings.items():
            name = f"docs_{alias}"
            filled = {**connections["default"].settings_dict, "OPTIONS": {}, **values}
            monkeypatch.setitem(connections.settings, name, filled)
            made.append(name)
            found = [message for message in check_databases() if name in message.msg]
            assert found == [], where
            del connections[name]

    made: list[str] = []
    yield check
    for name in {*made}:
        if hasattr(connections._connections, name):
            del connections[name]


@pytest.mark.parametrize("page", PAGES)
def test_blocks_of_a_page(page: str, server_uri: str, database: None, check: Any) -> None:
    known = names()
    try:
        for number, block in enumerate(blocks(page), 1):
            where = f"{page}, block {number}"
            # In a dict it stands for the rest of the settings.
            block = (
                re.sub(r"^ +\.\.\.,?\n", "", block, flags=re.MULTILINE) if "{\n" in block else block
            )
            if block.startswith(">>>"):
                test = doctest.DocTestParser().get_doctest(block, known, where, page, 0)
                assert doctest.DocTestRunner().run(test).failed == 0, where
            elif FRAGMENT.match(block):
                if is_run(page, block):
                    part = eval("{" + block + "}", known)
                    engine = "dj_db_conn_pool" if "POOL_OPTIONS" in part else "psycopg"
                    check({"default": {"ENGINE": f"relet.backends.{engine}", **part}}, where)
            elif not is_run(page, block):
                ast.parse(block, where)
            else:
                exec(compile(block, where, "exec"), known)
                with module_of(block, known):
                    if "DATABASES" in block:
                        check(known["DATABASES"], where)
    finally:
        connection.close()
        for name in [name for name in sys.modules if name.partition(".")[0] == "shop"]:
            del sys.modules[name]


def test_tenants_see_their_own_rows(server_uri: str, database: None) -> None:
    """The SQL and the context manager of `docs/tenants.md`, for a role without special rights."""
    page = (ROOT / "docs" / "tenants.md").read_text()
    (policy,) = re.findall(r"^```sql\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    known: dict[str, Any] = {}
    exec(blocks("docs/tenants.md")[0], known)

    def count(cursor: Any) -> int:
        cursor.execute("SELECT count(*) FROM shop_order")
        return int(cursor.fetchone()[0])

    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE shop_order (tenant_id int); INSERT INTO shop_order VALUES (1), (1), (2);"
            f"CREATE ROLE shop_tenant; GRANT SELECT ON shop_order TO shop_tenant; {policy}"
        )
        try:
            with hold():
                cursor.execute("SET ROLE shop_tenant")
                for number, rows in (1, 2), (2, 1), (3, 0):
                    with known["tenant"](number):
                        assert count(cursor) == rows
                with pytest.raises(DataError, match="invalid input syntax for type integer"):
                    count(cursor)
        finally:
            cursor.execute("DROP TABLE shop_order; DROP ROLE shop_tenant")
