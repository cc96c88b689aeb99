"""I14: whatever a borrower can change of a driver's connection, settings() tells.

What there is to change, the driver's class is asked. A name that a new version brings fails a test
here, until somebody has looked at it.
"""

from __future__ import annotations

from contextlib import suppress

import pytest

from relet.core import PoolAdapter, PoolConfig, registry

from ..support import driver_changes
from ..support.driver_changes import Change, Kept, kept_open, names

#: An engine for each driver that there is.
ENGINES = [
    name
    for name in ("psycopg", "sqlalchemy", "pg8000")
    if not registry.missing(registry.spec(name))
]


@pytest.fixture
def pool(request, parameters):
    adapter = registry.load(request.param)
    pool = adapter(PoolConfig("alias", parameters, adapter.options_for(size=1, timeout=5)))
    pool.open()
    yield pool
    pool.close()


@pytest.fixture
def raw(pool):
    connection = pool.checkout()
    raw = connection.raw
    yield raw
    raw.close()
    kept_open.clear()
    pool.discard(connection)


@pytest.fixture
def known(pool):
    """The module that knows what can be changed."""
    return driver_changes.of(pool.dbapi)


def _title(one):
    return one.name if isinstance(one, Change) else one.__name__


def pytest_generate_tests(metafunc):
    """Run a test with each driver; with a change, or an ordinary use, with each of the driver's."""
    for name, listed in ("change", "CHANGES"), ("use", "ORDINARY"):
        if name in metafunc.fixturenames:
            made = [
                pytest.param(engine, one, id=f"{engine}-{_title(one)}")
                for engine in ENGINES
                for one in getattr(driver_changes.of(registry.load(engine).dbapi), listed)
            ]
            metafunc.parametrize(("pool", name), made, indirect=["pool"])
            return
    if "pool" in metafunc.fixturenames:
        metafunc.parametrize("pool", ENGINES, indirect=True)


def test_every_name_is_known(pool, raw, known):
    found = names(raw, known.PARTS)
    changed = {change.attribute for change in known.CHANGES}
    listed = changed | known.EXCEPTIONS.keys()
    assert not found - listed, (
        f"{pool.dbapi.__name__} {pool.dbapi.__version__} has names of which nobody knows whether "
        f"they change a connection for the next one who has it: {sorted(found - listed)}. If one "
        f"does, have settings() of {type(pool).__name__} tell, and list the change in CHANGES of "
        f"{known.__file__}; if it does not, list it in EXCEPTIONS there, with the reason."
    )
    assert not changed & known.EXCEPTIONS.keys()


def test_every_attribute_of_the_instance_is_looked_at(pool, raw, known):
    before = pool.driver_state(raw)
    assert pool.volatile == known.VOLATILE.keys()
    for prefix in known.INSTANCES:
        found = getattr(known.PARTS[prefix](raw), "__dict__", {})
        for name in found.keys() - known.VOLATILE.keys():
            value, found[name] = found[name], _like(found[name])
            changed = pool.driver_state(raw)
            found[name] = value
            assert changed != before, f"{prefix}{name}"
            assert pool.driver_state(raw) == before, f"{prefix}{name}"


def _like(value):
    """Return another object that can be asked what *value* can."""
    return type("Like", (), {"__getattr__": lambda self, name: getattr(value, name)})()


def test_one_that_somebody_has_put_there(pool, raw):
    before = pool.driver_state(raw)
    try:
        raw.somebodys = []
    except AttributeError:
        return  # there is no place for it
    with_it = pool.driver_state(raw)
    assert with_it != before
    raw.somebodys.append(1)
    assert pool.driver_state(raw) != with_it
    del raw.somebodys
    assert pool.driver_state(raw) == before


def test_a_change_is_seen(pool, raw, change):
    if not change_is_there(raw, change):
        pytest.skip(f"{pool.dbapi.__name__} {pool.dbapi.__version__} has no {change.attribute}")
    if change.before is not None:
        change.before(raw)
    before, looked = pool.driver_state(raw), change.look(raw)
    assert pool.driver_state(raw) == before
    assert not pool.is_blocked(raw)
    change.make(raw)
    assert pool.is_blocked(raw) is (change.kept is Kept.BLOCKED)
    if change.kept is Kept.SETTINGS:
        assert pool.driver_state(raw) != before
    elif change.kept is not Kept.BLOCKED:
        assert pool.driver_state(raw) == before
    if change.kept is Kept.REFUSED:
        with pytest.raises(pool.dbapi.Error):
            pool.execute_internal(raw, "SELECT 1")
    assert change.look(raw) != looked


def change_is_there(raw, change):
    owner, _, name = change.attribute.rpartition(".")
    for part in filter(None, owner.split(".")):
        raw = getattr(raw, part)
    return hasattr(raw, name)


def test_ordinary_use_is_no_change(pool, raw, use):
    before = pool.driver_state(raw)
    for _ in range(2):
        use(raw)
        assert not pool.is_blocked(raw)
        assert pool.driver_state(raw) == before


def test_what_was_made_known_before_is_no_change(pool, raw, known):
    """As Django does it for hstore and PostGIS, when a connection is new."""
    ends = ("register_dumper", "register_loader", "register", "add", "string_types")
    for change in known.CHANGES:
        if change.attribute.endswith(ends):
            change.make(raw)
    before = pool.driver_state(raw)
    for use in known.ORDINARY:
        use(raw)
    assert pool.driver_state(raw) == before


@pytest.mark.parametrize("begin", ["stream", "copy"])
def test_what_is_left_halfway_blocks(pool, raw, begin):
    if pool.dbapi.__name__ != "psycopg":
        pytest.skip("the driver has no such generators")
    cursor = raw.cursor()
    if begin == "stream":
        stream = cursor.stream("SELECT generate_series(1, 9)")
        next(stream)
        assert pool.is_blocked(raw)
        stream.close()
    else:
        with cursor.copy("COPY (SELECT 1) TO STDOUT"):
            if not pool.is_blocked(raw):  # in older versions: it is refused, and does not wait
                with pytest.raises(pool.dbapi.Error):
                    pool.execute_internal(raw, "SELECT 1")
    assert not pool.is_blocked(raw)


def test_a_trace(pool, raw, tmp_path):
    """Nobody can see that there is one."""
    if pool.dbapi.__name__ != "psycopg":
        pytest.skip("the driver has no traces")
    path = tmp_path / "trace"
    with path.open("w") as file:
        raw.pgconn.trace(file.fileno())
        pool.execute_internal(raw, "SELECT 'mine'")
        pool.undo_unseen(raw)
        pool.execute_internal(raw, "SELECT 'somebody else'")
        raw.pgconn.untrace()
    assert "mine" in path.read_text()
    assert "somebody else" not in path.read_text()


def test_notices_are_dropped(pool, raw):
    if not pool.keeps_notices:
        assert not hasattr(raw, "notices")
        return
    before = pool.driver_state(raw)
    pool.execute_internal(raw, "DO $$ BEGIN RAISE NOTICE 'secret'; END $$")
    with suppress(pool.dbapi.Error):
        pool.execute_internal(
            raw, "DO $$ BEGIN RAISE NOTICE 'secret'; RAISE EXCEPTION 'secret'; END $$"
        )
    assert len(raw.notices) == 2
    pool.drop_notices(raw)
    assert len(raw.notices) == 0
    assert pool.driver_state(raw) == before
    raw.notices = object()
    pool.drop_notices(raw)  # and raises nothing


def test_they_are_when_a_slot_checks_in(pool):
    """As adapters do it that have a checkin() alone."""
    if not pool.keeps_notices:
        pytest.skip("the driver keeps none")

    class Slot:
        connection = pool.checkout()

    slot = Slot()
    raw = slot.connection.raw
    pool.execute_internal(raw, "DO $$ BEGIN RAISE NOTICE 'secret'; END $$")
    PoolAdapter.checkin_from(pool, slot)
    assert len(raw.notices) == 0
