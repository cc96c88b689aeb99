"""Errors: each can be pickled, as multiprocessing, Celery and xdist do it, and copied."""

import copy
import pickle
from importlib import import_module
from pkgutil import walk_packages

import pytest

import relet.adapters
import relet.backends
import relet.core
from relet.adapters.conformance.report import Report
from relet.core import IllegalEvent, MissingDependency, PoolTimeout, UnknownAdapter
from relet.core.errors import pool_timeout

#: Programs, what they run, and what takes psycopg's place when it is imported.
LEFT_OUT = (".__main__", ".demo.project", ".postgresql_pg8000.")


def modules():
    """All modules of relet whose drivers are installed."""
    for package in relet.core, relet.adapters, relet.backends:
        for found in walk_packages(package.__path__, f"{package.__name__}.", onerror=lambda _: 0):
            if any(part in found.name for part in LEFT_OUT):
                continue
            try:
                yield import_module(found.name)
            except ImportError as error:
                if (error.name or "").startswith("relet"):
                    raise


def subclasses(kind):
    for subclass in kind.__subclasses__():
        yield subclass
        yield from subclasses(subclass)


def classes():
    """Each class that one of the modules defines."""
    found = {
        value
        for module in modules()
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, BaseException)
    }
    return sorted(
        (kind for kind in found if kind.__module__.startswith("relet.")),
        key=lambda kind: repr(kind),
    )


def examples():
    """One error of each class; those that compose their text are given what it is made from."""
    arguments = {
        "IllegalEvent": ("default", "running", "statement"),
        "UnknownEngine": ("relet", "relet.backends.psycopg"),
        "UnknownAdapter": ("psycop", ["psycopg"], ["a plugin is broken."]),
        "MissingDependency": ("psycopg", ["psycopg_pool"], "relet[psycopg]"),
        "Interrupted": (2,),
        "OptionError": ("default", "'CONN_MAX_AGE'", "it is 7", "relet.E001"),
        "ConformanceError": (Report("Adapter", ["open"], {"stats": "in_use is 2"}),),
        "Refused": ("check", "not today"),
    }
    found = [kind(*arguments.get(kind.__name__, ("a text",))) for kind in classes()]
    # Those that a driver's class is mixed into are made when they are needed.
    return [*found, pool_timeout(LookupError)("a text")]


EXAMPLES = examples()


def test_all_are_found():
    kinds = set(map(type, EXAMPLES))
    assert {IllegalEvent, MissingDependency, PoolTimeout, UnknownAdapter} < kinds
    made = set(subclasses(PoolTimeout))  # with drivers' classes
    assert set(subclasses(relet.core.ReletError)) - made <= kinds
    assert len(kinds) > 15


def same(one, other):
    assert type(one) is type(other)
    assert str(one) == str(other)
    assert one.args == other.args
    assert vars(one) == vars(other)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
class TestEach:
    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_is_pickled(self, error, protocol):
        error.note = "a note"
        same(pickle.loads(pickle.dumps(error, protocol)), error)

    @pytest.mark.parametrize("how", [copy.copy, copy.deepcopy])
    def test_is_copied(self, error, how):
        error.note = "a note"
        same(how(error), error)


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "relet.adapters.pg8000.dbapi"])
def test_timeouts_of_drivers(driver):
    dbapi = pytest.importorskip(driver)
    error, plain = pool_timeout(dbapi.OperationalError)("held by nobody"), dbapi.OperationalError()
    error.note = plain.note = "a note"
    # psycopg2's errors keep what is theirs, and no notes.
    note = vars(pickle.loads(pickle.dumps(plain))).get("note")
    for again in pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error):
        assert type(again) is type(error)
        assert isinstance(again, PoolTimeout)
        assert isinstance(again, dbapi.OperationalError)
        assert (str(again), vars(again).get("note")) == ("held by nobody", note)
