"""Names that changed work for one version more, and warn."""

from __future__ import annotations

import linecache
from typing import Generic, TypeVar

import pytest

from relet.core import PoolAdapter, PooledConnection

Item = TypeVar("Item")


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


def old_run(self, raw, sql):
    return []


def by_a_statement():
    class Adapter(Made):  # defined here
        run = old_run


def by_type():
    type("Adapter", (Made,), {"run": old_run})  # defined here


def by_a_generic():
    class Adapter(Made, Generic[Item]):  # defined here
        run = old_run


def by_a_mixin():
    class Driver:
        run = old_run

    class Adapter(Driver, Made):  # defined here
        pass


@pytest.mark.parametrize("define", [by_a_statement, by_type, by_a_generic, by_a_mixin])
def test_the_warning_is_of_the_line_that_defines_the_class(define):
    """Python shows only those of ``__main__``, and others by the file."""
    with pytest.warns(DeprecationWarning, match="use execute_internal") as warned:
        define()
    (warning,) = warned
    assert warning.filename == __file__
    assert "# defined here" in linecache.getline(__file__, warning.lineno)


def use_old_names():
    from relet.adapters import gate

    object.__new__(adapter(execute_internal=old_run, **_EVERYTHING)).run(None, "SELECT 1")
    Whole.doubts([1])
    gate.Gate(1)
    _ = gate.GateClosed
    PooledConnection(None, 1.0).proven_at = 2.0
    _ = PooledConnection(None, 1.0).proven_at


def test_old_names_are_warned_of_where_they_are_used():
    with pytest.warns(DeprecationWarning, match="is deprecated") as warned:
        use_old_names()
    assert [warning.filename for warning in warned] == [__file__] * 6


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


class Whole(Made):
    """An adapter that has all methods by their new names."""

    def execute_internal(self, raw, sql):
        return [sql]

    def has_unread_data(self, raw):
        return raw == "unread"

    @classmethod
    def option_warnings(cls, options):
        return [cls.__name__, *options]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_calling_super_by_an_old_name():
    class Old(Whole):
        def run(self, raw, sql):
            return ["old", *super().run(raw, sql)]

        def silent(self, raw):
            return super().silent(raw)

        @classmethod
        def doubts(cls, options):
            return ["old", *super().doubts(options)]

    class Older(Old):
        def run(self, raw, sql):
            return ["older", *super().run(raw, sql)]

    class Newer(Old):
        def execute_internal(self, raw, sql):
            return ["newer", *super().execute_internal(raw, sql)]

    class Mixed(Whole):
        def execute_internal(self, raw, sql):
            return ["mixed", *super().run(raw, sql)]

    assert bare(Old).execute_internal(None, 1) == ["old", 1]
    assert bare(Older).execute_internal(None, 1) == ["older", "old", 1]
    assert bare(Newer).execute_internal(None, 1) == ["newer", "old", 1]
    assert bare(Mixed).execute_internal(None, 1) == ["mixed", 1]
    assert Old.option_warnings([1]) == ["old", "Old", 1]
    assert bare(Old).has_unread_data("unread")
    assert not bare(Old).has_unread_data("read")


def test_calling_a_class_by_an_old_name():
    with pytest.warns(DeprecationWarning, match=r"Whole.doubts\(\) .* use option_warnings\(\)"):
        assert Whole.doubts([1]) == ["Whole", 1]
    with pytest.warns(DeprecationWarning, match="which returns the opposite"):
        assert not bare(Whole).silent("unread")


def test_a_mixin_that_has_old_names():
    class Driver:
        def run(self, raw, sql):
            return ["driver", *super().run(raw, sql)]

        def truths(self, cursor):
            return [True]

    with pytest.warns(DeprecationWarning, match=r"Driver\.(run|truths)\(\)") as warned:

        class Shop(Driver, Whole):
            pass

    assert len(warned) == 2
    assert bare(Shop).boolean_columns(None) == [True]
    with pytest.warns(DeprecationWarning, match=r"use execute_internal\(\)"):
        assert bare(Shop).execute_internal(None, 1) == ["driver", 1]


def test_what_has_an_old_name_by_chance():
    class Shop(Whole):
        settings = {"size": 1}  # noqa: RUF012

        def __init__(self):
            self.text = "its own"

    assert Shop.driver_state is Whole.driver_state
    shop = bare(Shop)
    shop.__init__()
    assert (shop.settings, shop.text) == ({"size": 1}, "its own")


def bare(cls):
    """An instance, as far as these methods need one."""
    return object.__new__(type(cls.__name__, (cls,), _EVERYTHING_ELSE))


_EVERYTHING = dict.fromkeys(PoolAdapter.__abstractmethods__)
_EVERYTHING_ELSE = dict.fromkeys(PoolAdapter.__abstractmethods__ - {"execute_internal"})


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
