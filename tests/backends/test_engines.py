"""Engines are importable for every registered adapter, a stranger's too."""

import importlib
import subprocess
import sys
import types

import pytest

from relet.backends import build
from relet.core import AdapterSpec, hookimpl, registry

from .. import engine
from . import driver


class Stranger:
    """A plugin as another distribution would bring it."""

    def __init__(self):
        adapter = engine.adapter()
        self.adapter = f"{adapter.__module__}:{adapter.__qualname__}"

    @hookimpl
    def relet_adapters(self):
        return [
            AdapterSpec(
                name="stranger",
                adapter=self.adapter,
                backend=engine.backend(),
                requires=(driver.NAME,),
            ),
            AdapterSpec(
                name="incomplete",
                adapter="no.such:Adapter",
                requires=("no_such_module",),
                install="no-such[pool]",
            ),
        ]


@pytest.fixture
def stranger():
    plugin = Stranger()
    registry.register(plugin)
    yield
    registry.unregister(plugin)
    for name in [name for name in sys.modules if name.startswith("relet.backends.stranger")]:
        del sys.modules[name]


def test_built_in():
    module = importlib.import_module(f"{engine.ENGINE}.base")
    assert module.DatabaseWrapper.__module__ == f"{engine.ENGINE}.base"
    assert module.DatabaseWrapper.vendor == "postgresql"


def test_a_strangers(stranger, make, database):
    from django.db.utils import load_backend

    wrapper = load_backend("relet.backends.stranger").DatabaseWrapper
    assert wrapper.__module__ == "relet.backends.stranger.base"
    made = wrapper(make("strange").settings_dict, "strange")
    with made.cursor() as cursor:
        cursor.execute("SELECT 1")
        assert made.connection is None
        assert cursor.fetchone() == (1,)


def test_unknown_name():
    with pytest.raises(ImportError, match=r"no adapter 'psycop'\. Registered are: .*\bpsycopg\b"):
        importlib.import_module("relet.backends.psycop.base")


def test_missing_dependency(stranger):
    with pytest.raises(ImportError, match=r"needs no_such_module. .*pip install 'no-such\[pool\]'"):
        importlib.import_module("relet.backends.incomplete.base")


def test_django_shows_the_reason():
    from django.core.exceptions import ImproperlyConfigured
    from django.db.utils import load_backend

    with pytest.raises(ImproperlyConfigured) as caught:
        load_backend("relet.backends.psycop")
    assert "Registered are: dj_db_conn_pool, pg8000, psycopg" in str(caught.value.__cause__)


def test_from_import_of_an_unknown_name():
    with pytest.raises(ImportError, match="nothing_of_the_kind"):
        from relet.backends import nothing_of_the_kind  # noqa: F401


def test_missing_driver_names_the_extra():
    """In an interpreter where psycopg cannot be found."""
    code = """
import importlib.util, sys
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "psycopg" else find_spec(name, *rest)
import relet.core.registry
relet.core.registry.find_spec = importlib.util.find_spec
try:
    import relet.backends.psycopg.base
except ImportError as error:
    print(error)
"""
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert "pip install 'relet[psycopg]'" in output


def test_importing_relet_backends_imports_no_driver():
    code = "import sys, relet.backends; print([m for m in sys.modules if m.startswith('psycopg')])"
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert output.strip() == "[]"


def test_build_over_another_backend(make, monkeypatch, database):
    """What a backend does to new connections is done: here in get_new_connection()."""
    seen = []

    class Other(driver.Django):
        def get_new_connection(self, conn_params):
            connection = super().get_new_connection(conn_params)
            seen.append(connection)
            return connection

    package = types.ModuleType("other_backend")
    package.__path__ = []
    base = types.ModuleType("other_backend.base")
    base.DatabaseWrapper = Other
    monkeypatch.setitem(sys.modules, "other_backend", package)
    monkeypatch.setitem(sys.modules, "other_backend.base", base)
    wrapper_class = build(engine.NAME, base="other_backend")
    assert issubclass(wrapper_class, Other)
    wrapper = wrapper_class(make("over").settings_dict, "over")
    for _ in range(3):
        with wrapper.cursor() as cursor:
            cursor.execute("SELECT 1")
        wrapper.close()
    assert len(seen) == 1
