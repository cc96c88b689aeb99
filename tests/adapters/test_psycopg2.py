"""What is peculiar to psycopg2: cursors that have their rows, and the text of a query."""

import pytest

psycopg2 = pytest.importorskip("psycopg2", reason="psycopg2 is not installed")
extras = pytest.importorskip("psycopg2.extras")


@pytest.fixture
def connect(parameters):
    from relet.adapters.drivers.psycopg2 import Psycopg2

    opened = []

    def connect(**others):
        opened.append(Psycopg2.connect({**parameters, **others}))
        return opened[-1]

    yield connect
    for raw in opened:
        raw.close()


def series(raw, name=None):
    cursor = raw.cursor(name) if name else raw.cursor()
    cursor.execute("SELECT n, 'x' AS x FROM generate_series(1, 4) AS n")
    return cursor


ROWS = [(1, "x"), (2, "x"), (3, "x"), (4, "x")]


class TestBuffered:
    """Each in comparison with psycopg2's own, while the connection is open."""

    @pytest.fixture(params=[True, False], ids=["buffered", "plain"])
    def raw(self, request, connect, parameters):
        if request.param:
            raw = connect()
        else:
            raw = psycopg2.connect(**parameters)
            raw.autocommit = True
        yield raw
        raw.close()

    def test_fetching(self, raw):
        cursor = series(raw)
        assert cursor.rownumber == 0
        assert cursor.fetchone() == ROWS[0]
        assert cursor.rownumber == 1
        assert cursor.fetchmany() == ROWS[1:2]
        cursor.arraysize = 2
        assert cursor.fetchmany() == ROWS[2:]
        assert cursor.fetchmany(3) == []
        assert cursor.fetchone() is None
        assert cursor.fetchall() == []
        assert cursor.rowcount == 4

    def test_iterating(self, raw):
        cursor = series(raw)
        assert next(cursor) == ROWS[0]
        assert list(cursor) == ROWS[1:]
        with pytest.raises(StopIteration):
            next(cursor)

    def test_scrolling(self, raw):
        cursor = series(raw)
        cursor.fetchall()
        cursor.scroll(-2)
        assert cursor.fetchone() == ROWS[2]
        cursor.scroll(1, mode="absolute")
        assert cursor.fetchone() == ROWS[1]
        for value, mode in (4, "absolute"), (-1, "absolute"), (5, "relative"):
            with pytest.raises((psycopg2.ProgrammingError, IndexError)):
                cursor.scroll(value, mode)
        with pytest.raises(psycopg2.ProgrammingError, match="mode"):
            cursor.scroll(0, "sideways")
        assert cursor.rownumber == 2

    def test_no_rows(self, raw):
        cursor = raw.cursor()
        for run in (
            lambda: None,
            lambda: cursor.execute("SET lock_timeout = 0"),
            lambda: cursor.executemany("SELECT %s", [(1,), (2,)]),
        ):
            run()
            for fetch in cursor.fetchone, cursor.fetchall, cursor.fetchmany:
                with pytest.raises(psycopg2.ProgrammingError, match="no results to fetch"):
                    fetch()

    def test_an_error_leaves_no_rows_of_the_last_statement(self, raw):
        cursor = series(raw)
        with pytest.raises(psycopg2.Error):
            cursor.execute("SELECT 1/0")
        with pytest.raises(psycopg2.ProgrammingError, match="no results to fetch"):
            cursor.fetchone()

    def test_closed(self, raw):
        cursor = series(raw)
        cursor.close()
        for fetch in cursor.fetchone, cursor.fetchall, cursor.fetchmany, lambda: list(cursor):
            with pytest.raises(psycopg2.InterfaceError, match="cursor already closed"):
                fetch()

    def test_server_side(self, raw):
        raw.autocommit = False
        cursor = series(raw, name="c")
        assert cursor.fetchone() == ROWS[0]
        assert cursor.rownumber == 1
        cursor.scroll(1)
        assert list(cursor) == ROWS[2:]
        cursor.close()

    def test_callproc(self, raw):
        cursor = raw.cursor()
        assert cursor.callproc("abs", [-3]) == [-3]
        assert cursor.fetchall() == [(3,)]
        cursor.callproc("pg_backend_pid")
        assert cursor.fetchone() == (raw.info.backend_pid,)


@pytest.mark.parametrize("factory", [extras.DictCursor, extras.NamedTupleCursor])
def test_other_cursor_classes_are_buffered_too(connect, factory):
    raw = connect(cursor_factory=factory)
    cursor = series(raw)
    raw.close()
    first = cursor.fetchone()
    assert tuple(first) == ROWS[0]
    assert (first["x"] if factory is extras.DictCursor else first.x) == "x"
    assert [tuple(row) for row in cursor] == ROWS[1:]
