"""Functions in the pool's options that raise: whoever waits is told why, at once.

The pools have a timeout of a minute, and no test takes as long.
"""

import re
from time import monotonic

import pytest
from django.db import DatabaseError

from ..support import driver, engine
from ..support.pools import at_rest, backend_pid, stats
from ..support.sessions import kill, until_true
from ..support.threads import in_thread

SQLALCHEMYS = ("sqlalchemy", "pg8000")


class Sealed(Exception):
    pass


class Callback:
    """A function that looks at each connection, and raises while there is an `error`."""

    error = None

    def __init__(self):
        self.calls = 0

    def __call__(self, raw, entry=None):
        self.calls += 1
        if isinstance(self.error, str):
            raw.cursor().execute(self.error)
        elif self.error is not None:
            raise self.error


@pytest.fixture
def callback():
    return Callback()


@pytest.fixture(autouse=True)
def at_once():
    before = monotonic()
    yield
    assert monotonic() - before < 30


def pool_with(callback, option="configure", size=1):
    """Options of a pool that calls *callback*, for each new connection or each checkout."""
    if engine.NAME in SQLALCHEMYS:
        events = {"configure": "connect", "check": "checkout"}
        calls = lambda raw, entry, *rest: callback(raw)  # noqa: E731
        small = engine.adapter().options_for(size=size, timeout=60)
        return {**small, "events": [(calls, events[option])]}
    if engine.NAME == "psycopg":
        return {"min_size": 1, "max_size": size, "timeout": 60, option: callback}
    pytest.skip(f"the pool of the engine {engine.NAME} calls nothing")


ERRORS = [
    (lambda: Sealed("the vault"), Sealed, "the vault"),
    (lambda: "SET ROLE no_such_role", DatabaseError, "no_such_role"),
    (lambda: driver.dbapi.OperationalError("not this one"), DatabaseError, "not this one"),
]


@pytest.mark.parametrize(("make_error", "raised", "says"), ERRORS)
class TestConfigure:
    def test_of_the_first_connection(self, make, observer, callback, make_error, raised, says):
        options = {"application_name": "called"}
        wrapper = make("called", pool=pool_with(callback), OPTIONS=options)
        callback.error = make_error()
        errors = []
        for _ in range(3):
            with pytest.raises(raised, match=says) as caught:
                backend_pid(wrapper)
            errors.append(caught)  # with all that their frames refer to
        assert stats(wrapper).in_use == 0
        left = "SELECT count(*) = %s FROM pg_stat_activity WHERE application_name = 'called'"
        until_true(observer, left, 0)
        callback.error = None
        assert backend_pid(wrapper)
        assert at_rest(wrapper)

    def test_of_the_next(self, make, observer, callback, make_error, raised, says):
        wrapper = make("called", pool=pool_with(callback))
        pid = backend_pid(wrapper)
        callback.error = make_error()
        kill(observer, pid)
        with pytest.raises(DatabaseError, match=driver.LOST):
            backend_pid(wrapper)
        for _ in range(3):
            with pytest.raises(raised, match=says):
                backend_pid(wrapper)
        callback.error = None
        assert backend_pid(wrapper)
        assert at_rest(wrapper)

    def test_while_another_is_in_use(self, make, callback, make_error, raised, says):
        wrapper = make("called", pool=pool_with(callback, size=2))
        with wrapper.temporary_connection():
            callback.error = make_error()
            with pytest.raises(raised, match=says):
                in_thread(lambda: backend_pid(wrapper.copy()))
            callback.error = None
            assert in_thread(lambda: backend_pid(wrapper.copy()))
        assert at_rest(wrapper)


@pytest.mark.parametrize(("make_error", "raised", "says"), ERRORS)
class TestCheck:
    def test_of_a_new_connection(self, make, callback, make_error, raised, says):
        wrapper = make("called", pool=pool_with(callback, "check"))
        callback.error = make_error()
        for _ in range(3):
            with pytest.raises(raised, match=says):
                backend_pid(wrapper)
        assert stats(wrapper).in_use == 0
        callback.error = None
        assert backend_pid(wrapper)

    def test_of_one_that_was_idle(self, make, callback, make_error, raised, says):
        wrapper = make("called", pool=pool_with(callback, "check"))
        assert backend_pid(wrapper)
        callback.error = make_error()
        for _ in range(3):
            with pytest.raises(raised, match=says):
                backend_pid(wrapper)
        callback.error = None
        assert backend_pid(wrapper)


@engine.needs("psycopg", "psycopg_pool's options")
class TestPsycopgPool:
    @pytest.mark.parametrize("option", ["configure", "check"])
    def test_the_option_is_named(self, make, callback, option):
        wrapper = make("called", pool=pool_with(callback, option))
        callback.error = "SET ROLE no_such_role"
        where = re.escape(f"DATABASES['called']['OPTIONS']['pool']['{option}']")
        with pytest.raises(DatabaseError, match=rf"(?s){where}.*no_such_role") as caught:
            backend_pid(wrapper)
        assert caught.value.__cause__.sqlstate == "22023"

    def test_one_that_was_idle_is_replaced(self, make, callback):
        """As psycopg_pool does it."""
        wrapper = make("called", pool=pool_with(callback, "check"))
        pid = backend_pid(wrapper)
        refused = []

        def refuse(raw):
            if raw.info.backend_pid == pid:
                refused.append(raw)
                raise Sealed

        callback.__class__ = type("Refusing", (Callback,), {"__call__": lambda _, raw: refuse(raw)})
        assert backend_pid(wrapper) != pid
        assert refused
        assert at_rest(wrapper)
