"""Guards: what tests and tools lay around Django's wrappers and cursors sees relet's, too."""

from __future__ import annotations

import asyncio
import unittest
from unittest import mock

import pytest
from asgiref.sync import sync_to_async
from django.core.exceptions import SynchronousOnlyOperation
from django.db import DatabaseError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test import SimpleTestCase
from testapp.models import Item

from ..support.pools import at_rest, stats


class Refused(Exception):
    pass


def refuse(*args, **kwargs):
    raise Refused


def blocking():
    """As pytest-django blocks the database in tests that do not ask for it."""
    return mock.patch.object(BaseDatabaseWrapper, "ensure_connection", refuse)


@pytest.fixture
def blocked():
    with blocking():
        yield


def select(db):
    with db.cursor() as cursor:
        cursor.execute("SELECT 1")
        return cursor.fetchone()


STATEMENTS = {
    "execute": select,
    "executemany": lambda db: db.cursor().executemany("SELECT %s", [(1,)]),
    "a session's": lambda db: db.cursor().execute("SET app.x = '1'"),
    "write": lambda db: Item.objects.create(name="never"),
    "iterator": lambda db: next(Item.objects.all().iterator()),
    "chunked cursor": lambda db: db.chunked_cursor().execute("SELECT 1"),
    "a cursor's connection": lambda db: db.cursor().connection.cursor(),
    "atomic": lambda db: transaction.atomic()(select)(db),
    "connect": lambda db: db.ensure_connection(),
}


@pytest.mark.parametrize("run", STATEMENTS.values(), ids=STATEMENTS)
def test_whoever_forbids_to_connect_is_asked(db, blocked, run):
    with pytest.raises(Refused):
        run(db)
    assert stats(db).in_use == 0


def test_it_is_asked_again_when_a_cursor_is_older(db):
    select(db)
    with db.cursor() as cursor:
        with blocking(), pytest.raises(Refused):
            cursor.execute("SELECT 1")
        cursor.execute("SELECT 1")
    assert at_rest(db)


def test_a_wrapper_that_is_leased_needs_not_ask(db):
    with transaction.atomic():
        select(db)
        with blocking():
            assert select(db) == (1,)


def test_one_that_looks_on_is_called_once_for_each_lease(db):
    plain = BaseDatabaseWrapper.ensure_connection
    with mock.patch.object(
        BaseDatabaseWrapper, "ensure_connection", autospec=True, side_effect=plain
    ) as seen:
        select(db)
        select(db)
        assert seen.call_count == 2
        assert at_rest(db)
    with mock.patch.object(BaseDatabaseWrapper, "ensure_connection"):
        assert select(db) == (1,)
    assert at_rest(db)


def test_one_that_was_there_before_relet_was_imported(db, monkeypatch):
    from relet.backends.leases import guards
    from relet.backends.leases import runner as leasing

    monkeypatch.setattr(leasing, "default_ensure", guards.default_ensure_connection(refuse))
    assert leasing.default_ensure is None
    with blocking(), pytest.raises(Refused):
        select(db)
    assert select(db) == (1,)
    assert leasing.default_ensure is BaseDatabaseWrapper.ensure_connection


def test_simple_test_cases_forbid_statements(db):
    class Forbids(SimpleTestCase):
        def runTest(self):  # noqa: N802
            select(connections["default"])

    result = unittest.TestResult()
    unittest.TestSuite([Forbids()]).run(result)
    ((_, text),) = result.failures + result.errors
    assert "Database queries to 'default' are not allowed" in text
    assert select(db) == (1,)


# Coroutines.

IN_A_COROUTINE = {
    "atomic": lambda db: transaction.atomic().__enter__(),
    "set_autocommit": lambda db: db.set_autocommit(False),
    "get_autocommit": lambda db: db.get_autocommit(),
    "commit": lambda db: db.commit(),
    "rollback": lambda db: db.rollback(),
    "savepoint": lambda db: db.savepoint(),
    "cursor": lambda db: db.cursor(),
    "chunked_cursor": lambda db: db.chunked_cursor(),
    "connect": lambda db: db.connect(),
    "ensure_connection": lambda db: db.ensure_connection(),
    "close": lambda db: db.close(),
}


@pytest.mark.parametrize("run", IN_A_COROUTINE.values(), ids=IN_A_COROUTINE)
def test_a_coroutine_is_refused_at_once(db, run):
    select(db)

    async def main():
        # The wrapper of this thread: a coroutine has another.
        run(db)

    before = dict(db.__dict__)
    with pytest.raises(SynchronousOnlyOperation):
        asyncio.run(main())
    assert db.__dict__ == before
    assert at_rest(db)


def test_the_body_of_a_block_in_a_coroutine_does_not_run():
    ran = []

    async def main():
        with transaction.atomic():
            ran.append(True)

    with pytest.raises(SynchronousOnlyOperation):
        asyncio.run(main())
    assert ran == []


def test_django_can_be_told_that_it_is_safe(db, monkeypatch):
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")

    async def main():
        with transaction.atomic():
            return select(connections["default"])

    async def close():
        await sync_to_async(connections.close_all)()
        connections.close_all()

    assert asyncio.run(main()) == (1,)
    asyncio.run(close())


# Cursors.


@pytest.mark.parametrize("name", ["fetchone", "fetchmany", "fetchall", "close", "description"])
def test_a_class_around_a_cursor_forbids_its_results(db, name):
    """As django-debug-toolbar does it where templates must not query."""

    class Forbids:
        def __getattr__(self, name):
            raise Refused(name)

    with db.cursor() as cursor:
        forbidding = type("Forbidding", (Forbids, type(cursor)), {})(cursor.cursor, db)
        forbidding.execute("SELECT 1")
        with pytest.raises(Refused, match=name):
            getattr(forbidding, name)
        assert cursor.fetchone() == (1,)


def test_a_class_around_a_cursor_observes_its_results(db):
    seen = []

    class Observes:
        def __getattr__(self, name):
            seen.append(name)
            return super().__getattr__(name)

    with db.cursor() as cursor:
        observing = type("Observing", (Observes, type(cursor)), {})(cursor.cursor, db)
        observing.execute("SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 ORDER BY 1")
        assert observing.fetchone() == (1,)
        assert observing.fetchmany(1) == [(2,)]
        assert observing.fetchall() == [(3,)]
        observing.execute("SET LOCAL app.x = '1'")
        with pytest.raises(DatabaseError):
            observing.fetchone()
    assert seen == ["fetchone", "fetchmany", "fetchall", "fetchone"]


def test_methods_of_such_a_class_are_its_own(db):
    class Counts:
        def fetchone(self):
            return ("counted", *super().fetchone())

        def __getattr__(self, name):
            return super().__getattr__(name)

    with db.cursor() as cursor:
        counting = type("Counting", (Counts, type(cursor)), {})(cursor.cursor, db)
        counting.execute("SELECT 1")
        assert counting.fetchone() == ("counted", 1)
