"""Schema editors of other backends: what they pass to `execute()` is theirs to understand."""

from importlib.util import find_spec

import pytest
from django.db import connections, models
from django.db.backends.ddl_references import Statement, Table

from relet.backends import build

from ..support import driver, engine
from ..support.driver import Django
from ..support.pools import at_rest, backend_pid

CREATE = "CREATE EXTENSION IF NOT EXISTS plpgsql"


class Several(list):
    """Statements that go together, as a template: it has no text of its own."""

    def __mod__(self, parts):
        return Several(sql % parts for sql in self)


class Lazy:
    """A statement that is written when it is needed."""

    def __init__(self, sql):
        self.sql = sql

    def __str__(self):
        return self.sql


class Nothing:
    """What is passed where there is nothing to do."""

    __str__ = None


class Editor(Django.SchemaEditorClass):
    def execute(self, sql, params=()):
        if isinstance(sql, Nothing):
            return
        if isinstance(sql, Statement) and isinstance(sql.template, Several):
            for template in sql.template:
                super().execute(Statement(template, **sql.parts), params)
        else:
            super().execute(sql, params)


class Backend(Django):
    SchemaEditorClass = Editor


@pytest.fixture
def over(make):
    """Make a wrapper over a backend; Django knows it by its alias."""

    def over(backend):
        settings = make("edited").settings_dict
        connections["edited"] = build(engine.NAME, base=backend)(settings, "edited")
        return connections["edited"]

    yield over
    wrapper = connections["edited"]
    del connections["edited"]
    wrapper.close()
    assert at_rest(wrapper)


@pytest.fixture
def wrapper(over):
    return over(Backend)


def is_new(wrapper, *executed, **options):
    """Whether the pool is closed by what a schema editor has executed."""
    before = backend_pid(wrapper)
    with wrapper.schema_editor(**options) as editor:
        for sql in executed:
            editor.execute(sql)
    return backend_pid(wrapper) != before


@pytest.mark.parametrize(
    "sql",
    [
        CREATE,
        "create /* the */ extension\n if not exists plpgsql",
        f"SELECT 1; {CREATE}",
        Lazy(CREATE),
        Statement("CREATE EXTENSION IF NOT EXISTS %(table)s", table=Table("plpgsql", str)),
        Statement(Several(["SELECT 1", CREATE])),
    ],
)
def test_an_extension_that_is_created(wrapper, sql):
    assert is_new(wrapper, sql)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 'create extension'",
        "COMMENT ON EXTENSION plpgsql IS 'create extension plpgsql'",
        Lazy("SELECT 1"),
        Statement(Several(["SELECT %(one)s", "SELECT %(two)s"]), one="1", two="2"),
        Nothing(),
    ],
)
def test_what_creates_none(wrapper, sql):
    assert not is_new(wrapper, sql)


def test_what_is_only_collected(wrapper):
    assert not is_new(wrapper, CREATE, collect_sql=True)


def test_what_is_rolled_back(wrapper):
    before = backend_pid(wrapper)
    with pytest.raises(LookupError), wrapper.schema_editor() as editor:
        editor.execute(CREATE)
        raise LookupError
    assert backend_pid(wrapper) == before


def test_an_editor_outside_of_its_block(wrapper):
    before = backend_pid(wrapper)
    wrapper.schema_editor().execute(CREATE)
    assert backend_pid(wrapper) != before


@pytest.mark.skipif(driver.NAME == "pg8000", reason="it is a backend for psycopg")
@pytest.mark.skipif(
    find_spec("django_zero_downtime_migrations") is None,
    reason="django-pg-zero-downtime-migrations is not installed",
)
def test_django_pg_zero_downtime_migrations(over):
    wrapper = over("django_zero_downtime_migrations.backends.postgres")

    class Shelf(models.Model):
        name = models.CharField(max_length=10, unique=True)

        class Meta:
            app_label = "testapp"

    height = models.IntegerField(null=True, db_index=True)
    height.set_attributes_from_name("height")
    with wrapper.schema_editor() as editor:
        editor.create_model(Shelf)
        editor.add_field(Shelf, height)
    assert is_new(wrapper, CREATE)
    with wrapper.schema_editor() as editor:
        editor.delete_model(Shelf)


def test_the_editor_has_the_execute_of_its_backend(wrapper):
    """Tests replace it there, by what leads back to the editor's own."""
    assert type(wrapper.schema_editor()).execute is Editor.execute


def test_an_editor_leaves_nothing_behind(wrapper):
    def watch(execute, *args):
        return execute(*args)

    with wrapper.execute_wrapper(watch):
        editor = wrapper.schema_editor()
    assert watch not in wrapper.execute_wrappers
    with editor:
        editor.execute("SELECT 1")
    assert wrapper.execute_wrappers == []
    wrapper.schema_editor()
    assert wrapper.execute_wrappers == []
