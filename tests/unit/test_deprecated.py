"""Names that changed work for one version more, and warn."""

from __future__ import annotations

import pytest

from relet.core import PoolAdapter, PooledConnection


class Made(PoolAdapter[object]):
    """An adapter with nothing but what each test gives it."""


def adapter(**methods):
    return type("Adapter", (Made,), methods)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("run", "execute_internal"),
        ("settings", "driver_state"),
        ("text", "sql_text"),
        ("truths", "boolean_columns"),
        ("doubts", "option_warnings"),
        ("reuses", "is_pooling"),
    ],
)
def test_an_adapter_that_overrides_a_method_by_its_old_name(old, new):
    with pytest.warns(DeprecationWarning, match=rf"Adapter.{old}\(\) is deprecated.*{new}\(\)"):
        changed = adapter(**{old: lambda self, *args: args})
    assert getattr(changed, new)(None, 7) == (7,)


def test_silence_is_the_opposite_of_unread_data():
    with pytest.warns(DeprecationWarning, match="has_unread_data"):
        changed = adapter(silent=lambda self, raw: raw == "silent")
    assert changed.has_unread_data(None, "not silent")
    assert not changed.has_unread_data(None, "silent")


def test_calling_by_an_old_name():
    made = object.__new__(adapter(execute_internal=lambda self, raw, sql: [sql], **_EVERYTHING))
    with pytest.warns(DeprecationWarning, match=r"use execute_internal\(\)"):
        assert made.run(None, "SELECT 1") == ["SELECT 1"]
    with pytest.raises(AttributeError, match="'Adapter' object has no attribute 'nothing'"):
        _ = made.nothing


_EVERYTHING = dict.fromkeys(PoolAdapter.__abstractmethods__)


def test_when_a_connection_was_last_used():
    connection = PooledConnection(None, 1.0)
    with pytest.warns(DeprecationWarning, match="use last_used_at"):
        connection.proven_at = 2.0
    assert connection.last_used_at == 2.0


def test_the_gate():
    from relet.adapters import gate

    with pytest.warns(DeprecationWarning, match="FairSemaphore"):
        old = gate.Gate(1)
    assert old.enter(0)
    assert old.inside == 1
    assert not old.enter(0)
    old.leave()
    assert old.inside == 0
    with pytest.warns(DeprecationWarning, match="SemaphoreClosed"):
        assert gate.GateClosed.__name__ == "SemaphoreClosed"
