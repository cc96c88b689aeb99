"""Engines are importable for every registered adapter, a stranger's too."""

import importlib
import importlib.util
import subprocess
import sys
import types

import pytest
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from relet.backends import build
from relet.core import AdapterSpec, hookimpl, registry

from ..support import driver, engine


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
            AdapterSpec(name="broken", adapter="no.such:Adapter"),
            AdapterSpec(name="baseless", adapter=self.adapter, backend="no.such"),
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


@engine.needs("psycopg", "other name")
class TestPostgresql:
    """The psycopg engine, for packages that look for "postgresql" in ENGINE."""

    def test_it_is_the_psycopg_engine(self, make):
        from django.db.utils import load_backend

        wrapper_class = load_backend("relet.backends.postgresql").DatabaseWrapper
        assert wrapper_class.__module__ == "relet.backends.postgresql.base"
        assert wrapper_class.adapter_class is engine.adapter()
        assert wrapper_class.plain_backend.__module__ == "django.db.backends.postgresql.base"
        wrapper = wrapper_class(make("other").settings_dict, "other")
        with wrapper.cursor() as cursor:
            cursor.execute("SELECT 1")
            assert wrapper.connection is None
            assert cursor.fetchone() == (1,)
        wrapper.close()

    def test_build_knows_it(self):
        assert build("postgresql").adapter_class is engine.adapter()

    def test_the_checks_know_it(self, monkeypatch):
        settings = connections["default"].settings_dict
        wrong = {**settings, "ENGINE": "relet.backends.postgresql", "CONN_MAX_AGE": 7}
        monkeypatch.setitem(connections.settings, "wrong", wrong)
        (error,) = checks.run_checks(tags=["relet"])
        del connections["wrong"]
        assert error.id == "relet.E001"
        assert "DATABASES['wrong']" in error.msg


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("postgres", "postgresql"),
        ("postgressql", "postgresql"),
        ("psycop", "psycopg"),
        ("psycopg2", "psycopg"),
        ("psycopg_pool", "psycopg"),
        ("sqlalchamy", "sqlalchemy"),
        ("dj_db_connection_pool", "dj_db_conn_pool"),
        ("pg800", "pg8000"),
    ],
)
def test_an_engine_that_is_meant(name, meant):
    with pytest.raises(
        ImportError, match=rf"No adapter is named {name!r}\..* Did you mean {meant!r}\? "
    ):
        importlib.import_module(f"relet.backends.{name}.base")


def test_no_engine_is_meant():
    with pytest.raises(ImportError, match="No adapter is named 'nothing'") as caught:
        importlib.import_module("relet.backends.nothing.base")
    assert "Did you mean" not in str(caught.value)


@pytest.mark.parametrize("name", ["relet.backends.postgis", "relet.postgis"])
def test_postgis_is_told_how(name):
    with pytest.raises(ImportError, match=r"write an engine of your own with relet\.build"):
        importlib.import_module(f"{name}.base")


def test_psycopg2_is_told_which_engine_runs_on_it():
    with pytest.raises(ImportError, match=r"'relet\.backends\.sqlalchemy' runs on psycopg2"):
        importlib.import_module("relet.backends.psycopg2.base")


#: What is written as ENGINE, and what is meant.
ALMOST = {
    "relet": "psycopg",
    "relet.backends": "psycopg",
    "relet.psycopg": "psycopg",
    "relet.postgres": "postgresql",
    "relet.pg8000": "pg8000",
    "relet.psycopg2": "sqlalchemy",
    "relet.backends.postgresql.base": "postgresql",
    "relet.core": "psycopg",
    "relet.adapters.conformance": "psycopg",
    "relet.db.backends.postgresql": "psycopg",
}


@pytest.mark.parametrize("almost", ALMOST)
@engine.needs("psycopg", "importing the engine of that name")
def test_what_to_write(almost):
    from django.core.exceptions import ImproperlyConfigured
    from django.db.utils import load_backend

    with pytest.raises(ImproperlyConfigured) as caught:
        load_backend(almost)
    named = "relet.db" if almost.startswith("relet.db") else almost
    assert str(caught.value.__cause__).startswith(
        f"{named!r} is not an engine. Write 'ENGINE': 'relet.backends.{ALMOST[almost]}'."
    )


def test_what_to_write_where_nothing_is_imported():
    """As when settings have been read, and nothing else has happened; and the check."""
    code = """
from django.conf import settings
settings.configure(DATABASES={"default": {"ENGINE": "relet"}})
from django.core.exceptions import ImproperlyConfigured
from django.db import connection
try:
    connection.ensure_connection()
except ImproperlyConfigured as error:
    print(error.__cause__)
import relet.backends
from django.core import checks
(error,) = checks.run_checks(tags=["relet"])
print(error.id, error.msg)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    text, message = done.stdout.splitlines()
    assert text.startswith("'relet' is not an engine. Write 'ENGINE': 'relet.backends.psycopg'.")
    assert message == f"relet.E007 DATABASES['default']['ENGINE']: {text}"


def test_a_module_that_is_no_engine_is_not_found_as_any_other():
    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'relet\.nothing'$"):
        importlib.import_module("relet.nothing")
    assert importlib.util.find_spec("relet.nothing") is None


def test_unknown_name():
    with pytest.raises(
        ImportError, match=r"No adapter is named 'psycop'\. Registered adapters: .*\bpsycopg\b"
    ):
        importlib.import_module("relet.backends.psycop.base")


def test_missing_dependency(stranger):
    with pytest.raises(
        ImportError, match=r"requires no_such_module. .*pip install 'no-such\[pool\]'"
    ):
        importlib.import_module("relet.backends.incomplete.base")


def test_django_shows_the_reason():
    from django.core.exceptions import ImproperlyConfigured
    from django.db.utils import load_backend

    with pytest.raises(ImproperlyConfigured) as caught:
        load_backend("relet.backends.psycop")
    assert "Registered adapters: dj_db_conn_pool, pg8000, psycopg" in str(caught.value.__cause__)


def test_from_import_of_an_unknown_name():
    with pytest.raises(ImportError, match="nothing_of_the_kind"):
        from relet.backends import nothing_of_the_kind  # noqa: F401


def test_missing_driver_names_the_extra():
    """In an interpreter where psycopg cannot be found."""
    code = """
import importlib.util, sys
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "psycopg" else find_spec(name, *rest)
import relet.core.requirements
relet.core.requirements.find_spec = importlib.util.find_spec
try:
    import relet.backends.psycopg.base
except ImportError as error:
    print(error)
"""
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert "pip install 'relet[psycopg]'" in output


def test_a_driver_that_is_too_old(tmp_path):
    """In an interpreter where the metadata of an older psycopg_pool come first."""
    pytest.importorskip("psycopg_pool")
    metadata = tmp_path / "psycopg_pool-3.2.4.dist-info"
    metadata.mkdir()
    says = "Metadata-Version: 2.1\nName: psycopg-pool\nVersion: 3.2.4\n"
    (metadata / "METADATA").write_text(says)
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
try:
    import relet.backends.psycopg.base
except ImportError as error:
    print(error, type(error.__cause__).__name__)
"""
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert "psycopg_pool>=3.3,<3.4 (3.2.4 is installed)" in output
    assert "MissingDependency" in output


class TestChecks:
    """An engine that cannot be imported is told of by a check, and hides nothing of the others."""

    @pytest.fixture
    def check(self, stranger, monkeypatch):
        def check(engine):
            settings = {**connections["default"].settings_dict, "ENGINE": engine}
            monkeypatch.setitem(connections.settings, "wrong", settings)
            return checks.run_checks(tags=["relet"])

        return check

    @pytest.mark.parametrize(
        ("name", "says"),
        [
            ("relet.backends.incomplete", "requires no_such_module. Run: pip install"),
            ("relet.backends.psycop", "No adapter is named 'psycop'"),
            ("built_engine", "requires no_such_module"),
            ("relet.backends.broken", "adapter 'broken': no.such cannot be imported"),
            ("relet.backends.baseless", "adapter 'baseless': 'backend' is 'no.such'; it must be"),
        ],
    )
    def test_what_cannot_be_imported(self, check, monkeypatch, tmp_path, name, says):
        package = tmp_path / "built_engine"
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "base.py").write_text("from relet.backends import build\nbuild('incomplete')\n")
        monkeypatch.syspath_prepend(tmp_path)
        (error,) = check(name)
        assert (error.id, error.level) == ("relet.E007", checks.ERROR)
        assert "DATABASES['wrong']['ENGINE']: " in error.msg
        assert says in error.msg

    def test_another_engine_is_not_relets_to_judge(self, check):
        assert check("no.such.backend") == []

    def test_the_checks_are_there_before_an_engine_is(self):
        code = "import relet.backends; from django.core.checks.registry import registry as r; "
        code += "print([c.__name__ for c in r.registered_checks if 'relet' in c.tags])"
        command = [sys.executable, "-c", code]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert output.strip() == "['check_databases']"


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


@pytest.mark.parametrize("base", [3, 3.5, int, pytest, ["django.db.backends.postgresql"]])
def test_a_base_that_is_no_backend(base):
    with pytest.raises(ImproperlyConfigured) as caught:
        build(engine.NAME, base=base)
    says = f"build({engine.NAME!r}, base={base!r}): 'base' must be the dotted path of a Django"
    assert str(caught.value).startswith(says)
    assert engine.backend() in str(caught.value)


@pytest.mark.parametrize("backend", ["nope", "django.db.backends.nope", "importlib.metadata"])
def test_a_backend_of_a_plugin_that_is_not_there(backend):
    class Plugin:
        @hookimpl
        def relet_adapters(self):
            return [AdapterSpec("mine", registry.spec(engine.NAME).adapter, backend=backend)]

    plugin = Plugin()
    registry.register(plugin, "guilty")
    try:
        with pytest.raises(ImportError) as caught:
            build("mine")
    finally:
        registry.unregister(plugin)
    says = f"plugin 'guilty': adapter 'mine': 'backend' is {backend!r}; it must be the dotted path"
    assert str(caught.value).startswith(says)
